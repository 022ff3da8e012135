{{/* Names. Long ones are cut so that every suffix that the chart adds still fits a label. */}}
{{- define "berth.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "berth.fullname" -}}
{{- $name := include "berth.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* For objects without a namespace: releases of the same name may be in several. */}}
{{- define "berth.clusterFullname" -}}
{{- $fullname := include "berth.fullname" . }}
{{- if eq $fullname .Release.Namespace }}
{{- $fullname }}
{{- else }}
{{- printf "%s-%s" .Release.Namespace $fullname }}
{{- end }}
{{- end }}

{{- define "berth.keysSecret" -}}
{{- default (printf "%s-keys" (include "berth.fullname" .)) .Values.keys.secretName }}
{{- end }}

{{- define "berth.registry.serviceAccountName" -}}
{{- $account := .Values.registry.serviceAccount }}
{{- default (ternary (include "berth.fullname" .) "default" $account.create) $account.name }}
{{- end }}

{{- define "berth.operator.serviceAccountName" -}}
{{- $account := .Values.operator.serviceAccount }}
{{- default (ternary (printf "%s-operator" (include "berth.fullname" .)) "default" $account.create) $account.name }}
{{- end }}

{{- define "berth.gateway" -}}
{{- $gateway := .Values.exposure.gateway }}
{{- if $gateway.name }}{{ $gateway.name }}{{ else if $gateway.create }}{{ include "berth.fullname" . }}{{ end }}
{{- end }}

{{/* Labels. Takes (dict "root" $ "component" "…"). */}}
{{- define "berth.selectorLabels" -}}
app.kubernetes.io/name: {{ include "berth.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "berth.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "berth.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods. The chart's version is not among them: a new chart alone restarts nothing. */}}
{{- define "berth.podLabels" -}}
{{ include "berth.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object in the release's namespace. Takes (dict "root" $ "component" "…" "suffix" "…" "annotations" {…}). */}}
{{- define "berth.metadata" -}}
name: {{ include "berth.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "berth.labels" . | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "berth.image" -}}
{{- $image := .Values.image }}
{{- $name := $image.repository }}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $name }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "berth.externalScheme" -}}
{{- if .Values.externalScheme }}
{{- .Values.externalScheme }}
{{- else if or (eq .Values.domain "localhost") (hasSuffix ".localhost" .Values.domain) }}
{{- "http" }}
{{- else }}
{{- "https" }}
{{- end }}
{{- end }}

{{/* The apex as clients write it. */}}
{{- define "berth.externalName" -}}
{{- .Values.domain }}{{ if .Values.externalPort }}:{{ .Values.externalPort | int }}{{ end }}
{{- end }}

{{/* Flags from a map, as list entries. Whole numbers must not come out as 1e+06. */}}
{{- define "berth.extraArgs" -}}
{{- range $flag, $value := . }}
{{- $values := ternary $value (list $value) (kindIs "slice" $value) }}
{{- range $values }}
{{- $text := toString . }}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ $text = toString (int64 .) }}{{ end }}
- {{ printf "--%s=%s" $flag $text | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the pods of both programs share. Takes (dict "root" $ "values" .Values.… ). */}}
{{- define "berth.podPlacement" -}}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A mirror of nodes, as a flag. Takes (dict "root" $ "mirror" {…}). */}}
{{- define "berth.nodeMirror" -}}
{{- $values := .root.Values }}
{{- $endpoint := .mirror.endpoint }}
{{- if not $endpoint }}
{{- $made := printf "%s://{tenant}.%s" (include "berth.externalScheme" .root) (include "berth.externalName" .root) }}
{{- $endpoint = default $made $values.nodeMirrors.endpoint | replace "{tenant}" .mirror.tenant }}
{{- end }}
{{- printf "--mirror=upstream=%s,endpoint=%s" .mirror.upstream $endpoint }}
{{- with .mirror.server }},server={{ . }}{{ end }}
{{- with .mirror.ca }},ca={{ . }}{{ end }}
{{- end }}

{{/* What a schema cannot say. */}}
{{- define "berth.validate" -}}
{{- $registry := .Values.registry }}
{{- $needed := add $registry.drainTimeoutSeconds $registry.preStopSleepSeconds }}
{{- if le (int $registry.terminationGracePeriodSeconds) (int $needed) }}
{{- fail (printf "registry.terminationGracePeriodSeconds is %d: it must be more than drainTimeoutSeconds and preStopSleepSeconds together (%d), or pods are killed while they drain" (int $registry.terminationGracePeriodSeconds) (int $needed)) }}
{{- end }}
{{- if and $registry.autoscaling.enabled (gt (int $registry.autoscaling.minReplicas) (int $registry.autoscaling.maxReplicas)) }}
{{- fail "registry.autoscaling.minReplicas is more than registry.autoscaling.maxReplicas" }}
{{- end }}
{{- if and $registry.autoscaling.enabled (not $registry.autoscaling.targetCPUUtilizationPercentage) (not $registry.autoscaling.metrics) }}
{{- fail "registry.autoscaling has nothing to go by: set targetCPUUtilizationPercentage or metrics; without either Kubernetes takes a CPU utilisation of 80 %" }}
{{- end }}
{{- if $registry.readOnly.enabled }}
{{- if not .Values.keys.secretName }}
{{- fail "registry.readOnly.enabled goes with keys.secretName: name a copy of the Secret that the primary's operator makes" }}
{{- end }}
{{- if and .Values.exposure.perTenantRoutes (ne .Values.exposure.mode "none") }}
{{- fail "registry.readOnly.enabled goes with exposure.perTenantRoutes=false: no operator is there to make a route for each tenant" }}
{{- end }}
{{- end }}
{{- $upstreams := list }}
{{- range .Values.nodeMirrors.mirrors }}
{{- if has .upstream $upstreams }}
{{- fail (printf "nodeMirrors.mirrors names %s twice: a node has one file for each registry" .upstream) }}
{{- end }}
{{- $upstreams = append $upstreams .upstream }}
{{- end }}
{{- if has .Release.Namespace .Values.operator.namespaces }}
{{- fail (printf "operator.namespaces names %s, the release's own namespace: no Secret of a tenant is ever written there" .Release.Namespace) }}
{{- end }}
{{- end }}

{{/* Ports of a rule of a NetworkPolicy, from a list. */}}
{{- define "berth.policyPorts" -}}
{{- range . }}
- port: {{ . | int }}
  protocol: TCP
{{- end }}
{{- end }}

{{/* The rule by which pods resolve names. */}}
{{- define "berth.policyDns" -}}
- ports:
    - port: {{ .port | int }}
      protocol: UDP
    - port: {{ .port | int }}
      protocol: TCP
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* What an endpoint of a monitor may be told. */}}
{{- define "berth.monitor" -}}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 4 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}
