{{/* The registry's pod, the same in both modes but for its volume and where it keeps what. */}}
{{- define "berth.registry.pod" -}}
{{- $registry := .Values.registry }}
{{- $fullname := include "berth.fullname" . }}
{{- $listen := .Values.listenAddress -}}
metadata:
  labels:
    {{- include "berth.podLabels" (dict "root" . "component" "registry") | nindent 4 }}
    {{- with $registry.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or $registry.podAnnotations $registry.regions }}
  annotations:
    {{- with $registry.regions }}
    # The file is read at the start.
    berth.dev/regions: {{ toYaml . | sha256sum }}
    {{- end }}
    {{- with $registry.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "berth.registry.serviceAccountName" . }}
  # The registry never speaks to the API server.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $registry.terminationGracePeriodSeconds | int }}
  {{- include "berth.podPlacement" (dict "root" . "values" $registry) | nindent 2 }}
  {{- if eq $registry.mode "distributed" }}
  {{- $constraints := list }}
  {{- with $registry.topologySpread.zone }}{{ $constraints = append $constraints (dict "key" "topology.kubernetes.io/zone" "when" .) }}{{ end }}
  {{- with $registry.topologySpread.host }}{{ $constraints = append $constraints (dict "key" "kubernetes.io/hostname" "when" .) }}{{ end }}
  {{- with $constraints }}
  topologySpreadConstraints:
    {{- range . }}
    - topologyKey: {{ .key }}
      maxSkew: 1
      whenUnsatisfiable: {{ .when }}
      labelSelector:
        matchLabels:
          {{- include "berth.selectorLabels" (dict "root" $ "component" "registry") | nindent 10 }}
      # Old pods of a rolling update do not count.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- end }}
  containers:
    - name: registry
      image: {{ include "berth.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [/berth-registry]
      args:
        - serve
        - {{ printf "--listen=%s:5000" $listen | quote }}
        {{- if eq $registry.mode "distributed" }}
        - --peer-address=$(POD_IP):5000
        {{- end }}
        - {{ printf "--admin-listen=%s:5001" $listen | quote }}
        - {{ printf "--ops-listen=%s:5002" $listen | quote }}
        - --domain={{ .Values.domain }}
        - --external-scheme={{ include "berth.externalScheme" . }}
        - --apex-tenant=none
        # The Service's names reach the registry too, by path: <service>/{tenant}/{repository}.
        - --apex-hosts={{ $fullname }},{{ $fullname }}.{{ .Release.Namespace }},{{ $fullname }}.{{ .Release.Namespace }}.svc,{{ $fullname }}.{{ .Release.Namespace }}.svc.cluster.local
        - --open=Never
        {{- if eq $registry.mode "embedded" }}
        - --data=/var/lib/berth
        {{- end }}
        - --keys=/etc/berth/keys
        - --admin-key-file=/etc/berth/keys/admin
        - --admin-tls-cert=/etc/berth/keys/tls.crt
        - --admin-tls-key=/etc/berth/keys/tls.key
        {{- with $registry.trustedProxies }}
        - {{ printf "--trusted-proxies=%s" (join "," .) | quote }}
        {{- end }}
        {{- with $registry.egressAllow }}
        - {{ printf "--egress-allow=%s" (join "," .) | quote }}
        {{- end }}
        - --redirect={{ $registry.redirect }}
        {{- if $registry.regions }}
        - --regions=/etc/berth/regions/regions.yaml
        {{- end }}
        {{- if $registry.readOnly.enabled }}
        - --read-only=true
        {{- with $registry.readOnly.primary }}
        - --primary={{ . }}
        {{- end }}
        - --max-lag={{ $registry.readOnly.maxLag }}
        {{- end }}
        - --upload-memory={{ $registry.uploadMemory }}
        - --drain-timeout={{ $registry.drainTimeoutSeconds | int }}s
        - {{ printf "--log=%s" $registry.log | quote }}
        {{- with $registry.tracing.endpoint }}
        - {{ printf "--otlp-endpoint=%s" . | quote }}
        - --trace-sample={{ $registry.tracing.sample }}
        {{- end }}
        {{- with $registry.extraArgs }}
        {{- include "berth.extraArgs" . | trim | nindent 8 }}
        {{- end }}
      {{- $env := include "berth.registry.env" . }}
      {{- if $env }}
      env:
        {{- $env | trim | nindent 8 }}
      {{- end }}
      {{- with $registry.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: 5000
        - name: admin
          containerPort: 5001
        - name: ops
          containerPort: 5002
      # No probe that restarts asks a store: an outage of one would only be made longer.
      startupProbe:
        httpGet: {path: /livez, port: ops}
        periodSeconds: {{ $registry.probes.startup.periodSeconds | int }}
        timeoutSeconds: 5
        failureThreshold: {{ $registry.probes.startup.failureThreshold | int }}
      livenessProbe:
        httpGet: {path: /livez, port: ops}
        {{- range $key, $value := $registry.probes.liveness }}
        {{ $key }}: {{ $value | int }}
        {{- end }}
      readinessProbe:
        httpGet: {path: /readyz, port: ops}
        {{- range $key, $value := $registry.probes.readiness }}
        {{ $key }}: {{ $value | int }}
        {{- end }}
      # Where there is no other replica, nothing is gained by waiting until the edge goes to it.
      {{- if and $registry.preStopSleepSeconds (eq $registry.mode "distributed") }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ $registry.preStopSleepSeconds | int }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      resources:
        {{- toYaml $registry.resources | nindent 8 }}
      volumeMounts:
        {{- if eq $registry.mode "embedded" }}
        - name: data
          mountPath: /var/lib/berth
        {{- end }}
        - name: tmp
          mountPath: /tmp
        - name: keys
          mountPath: /etc/berth/keys
          readOnly: true
        {{- if $registry.regions }}
        - name: regions
          mountPath: /etc/berth/regions
          readOnly: true
        {{- end }}
        {{- with $registry.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    # The operator makes this Secret; until it is there the pod waits.
    - name: keys
      secret:
        secretName: {{ include "berth.keysSecret" . }}
        defaultMode: 0440
    {{- if $registry.regions }}
    - name: regions
      configMap:
        name: {{ printf "%s-regions" $fullname }}
    {{- end }}
    {{- if eq $registry.mode "embedded" }}
    {{- if not $registry.persistence.enabled }}
    - name: data
      emptyDir: {}
    {{- else if $registry.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ $registry.persistence.existingClaim }}
    {{- end }}
    {{- end }}
    {{- with $registry.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* What comes from Secrets, and what the user adds. */}}
{{- define "berth.registry.env" -}}
{{- $registry := .Values.registry }}
{{- if eq $registry.mode "distributed" }}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- end }}
{{- if eq $registry.zone "FromPod" }}
- name: BERTH_ZONE
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['topology.kubernetes.io/zone']
{{- else if $registry.zone }}
- name: BERTH_ZONE
  value: {{ $registry.zone | quote }}
{{- end }}
{{- if $registry.metadata.existingSecret }}
- name: BERTH_METADATA
  valueFrom:
    secretKeyRef:
      name: {{ $registry.metadata.existingSecret }}
      key: {{ $registry.metadata.key }}
{{- end }}
{{- if $registry.blobs.existingSecret }}
- name: BERTH_BLOBS
  valueFrom:
    secretKeyRef:
      name: {{ $registry.blobs.existingSecret }}
      key: {{ $registry.blobs.key }}
{{- else if $registry.blobs.url }}
- name: BERTH_BLOBS
  value: {{ $registry.blobs.url | quote }}
{{- end }}
{{- with $registry.blobs.credentials }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- with $registry.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
