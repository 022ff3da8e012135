{{/*
The alerts. Each says what users notice and where to look. Quantities that differ by installation, like the rate of
requests, are not judged.
*/}}
{{- define "berth.alerts" -}}
{{- $fullname := include "berth.fullname" . }}
{{- $ours := printf "namespace=%q,pod=~%q" .Release.Namespace (printf "%s-.*" $fullname) }}
- alert: BerthRegistryDown
  expr: absent(berth_build_info{ {{- $ours -}} })
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: No registry of {{ $fullname }} is scraped
    description: >-
      Pulls and pushes fail, or metrics do. Look at the pods of {{ $fullname }} in {{ .Release.Namespace }}, then at
      /readyz of one, which names the store that does not answer.
- alert: BerthServerErrors
  expr: |-
    sum(rate(berth_http_requests_total{ {{- $ours -}} ,status="5xx"}[5m]))
      / sum(rate(berth_http_requests_total{ {{- $ours -}} }[5m])) > 0.02
  for: 10m
  labels: {severity: critical}
  annotations:
    summary: {{ $fullname }} answers {{ `{{ $value | humanizePercentage }}` }} of requests with an error of its own
    description: >-
      Lines of the level ERROR in the registries' logs name the cause and the request's id, as do WARN lines the store
      that does not answer.
- alert: BerthManifestsSlow
  expr: |-
    histogram_quantile(0.99, sum by (le) (
      rate(berth_http_request_duration_seconds_bucket{ {{- $ours -}} ,route="manifest"}[5m]))) > 1
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: One in a hundred requests for a manifest at {{ $fullname }} takes longer than a second
    description: >-
      Pods start slowly. Manifests need the metadata store alone: look at its load and at the registries' processor use.
- alert: BerthUploadMemoryExhausted
  expr: berth_upload_memory_free_bytes{ {{- $ours -}} } / berth_upload_memory_bytes{ {{- $ours -}} } < 0.05
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: Uploads at {{ `{{ $labels.pod }}` }} wait for memory
    description: >-
      All of registry.uploadMemory is taken. The blob store is slower than clients push; if it is not, raise the value and
      the memory limit, or add replicas.
{{- if and (eq .Values.registry.mode "embedded") .Values.registry.persistence.enabled }}
- alert: BerthVolumeFilling
  expr: |-
    kubelet_volume_stats_available_bytes{namespace={{ .Release.Namespace | quote }},persistentvolumeclaim={{ default (printf "data-%s-0" $fullname) .Values.registry.persistence.existingClaim | quote }}}
      / kubelet_volume_stats_capacity_bytes{namespace={{ .Release.Namespace | quote }},persistentvolumeclaim={{ default (printf "data-%s-0" $fullname) .Values.registry.persistence.existingClaim | quote }}} < 0.1
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: The volume of {{ $fullname }} has {{ `{{ $value | humanizePercentage }}` }} left
    description: >-
      Pushes fail once it is full. Enlarge the claim, or let retention policies delete.
{{- end }}
- alert: BerthOperatorWithoutLeader
  expr: (sum(berth_operator_leader{ {{- $ours -}} }) or vector(0)) < 1
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: No operator of {{ $fullname }} leads
    description: >-
      Changes of Tenants are not followed and tokens are not rotated; pulls and pushes go on. Look at the operator's log
      and at the Lease {{ $fullname }}-operator in {{ .Release.Namespace }}.
- alert: BerthOperatorTwoLeaders
  expr: sum(berth_operator_leader{ {{- $ours -}} }) > 1
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: More than one operator of {{ $fullname }} believes that it leads
    description: >-
      The registry takes writes of the newest alone, so nothing is lost; the other one must end. Restart it.
- alert: BerthReconciliationFailing
  expr: |-
    sum by (kind) (rate(berth_operator_reconciliations_total{ {{- $ours -}} ,outcome="Failing"}[15m]))
      / sum by (kind) (rate(berth_operator_reconciliations_total{ {{- $ours -}} }[15m])) > 0.5
  for: 30m
  labels: {severity: warning}
  annotations:
    summary: Most looks at objects of the kind {{ `{{ $labels.kind }}` }} fail
    description: >-
      The registry's admin API, the API server or the edge refuses. The condition Ready of the objects and the operator's
      log say which.
- alert: BerthObjectsStalled
  expr: sum by (kind) (increase(berth_operator_reconciliations_total{ {{- $ours -}} ,outcome="Stalled"}[30m])) > 0
  for: 30m
  labels: {severity: info}
  annotations:
    summary: Objects of the kind {{ `{{ $labels.kind }}` }} wait for a person
    description: >-
      Their condition Stalled says what must be changed.
{{- end }}
