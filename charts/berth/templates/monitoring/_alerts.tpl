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
{{- /* Of 1000 requests one may fail: the budget of 30 days. Two windows each: one that shows enough of it burning, and a
short one, so that the alert ends soon after the trouble does. */}}
- alert: BerthErrorBudgetBurnsFast
  expr: |-
    {{ include "berth.errors" (list $ours "1h") }} > 14.4 * 0.001
    and
    {{ include "berth.errors" (list $ours "5m") }} > 14.4 * 0.001
  for: 2m
  labels: {severity: critical}
  annotations:
    summary: {{ $fullname }} answers {{ `{{ $value | humanizePercentage }}` }} of requests with an error of its own
    description: >-
      At this rate the errors of two days are spent within an hour. Lines of the level ERROR in the registries' logs name
      the cause and the request's id, as do WARN lines the store that does not answer.
- alert: BerthErrorBudgetBurnsSlowly
  expr: |-
    {{ include "berth.errors" (list $ours "6h") }} > 6 * 0.001
    and
    {{ include "berth.errors" (list $ours "30m") }} > 6 * 0.001
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: {{ $fullname }} has answered {{ `{{ $value | humanizePercentage }}` }} of requests with an error of its own for hours
    description: >-
      At this rate the errors of 30 days are spent within five. Lines of the level ERROR in the registries' logs name the
      cause and the request's id.
- alert: BerthStoreUnreachable
  expr: max by (store) (berth_store_up{ {{- $ours -}} }) == 0
  for: 2m
  labels: {severity: critical}
  annotations:
    summary: No registry of {{ $fullname }} reaches its store {{ `{{ $labels.store }}` }}
    description: >-
      Pulls and pushes fail. The registries' WARN lines say what the store answers.
- alert: BerthReplicaNotReady
  expr: berth_ready{ {{- $ours -}} } == 0
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "{{ `{{ $labels.pod }}` }} is not ready"
    description: >-
      The others take its requests. /readyz of the pod says why.
{{- /* Of 100 requests for manifests one may take longer than a second. */}}
- alert: BerthLatencyBudgetBurnsFast
  expr: |-
    {{ include "berth.slow" (list $ours "1h") }} > 14.4 * 0.01
    and
    {{ include "berth.slow" (list $ours "5m") }} > 14.4 * 0.01
  for: 2m
  labels: {severity: critical}
  annotations:
    summary: At {{ $fullname }} {{ `{{ $value | humanizePercentage }}` }} of requests for manifests take longer than a second
    description: >-
      Pods start slowly, everywhere. Manifests need the metadata store alone: look at its load, at the registries' processor
      use, and at the upstreams of caches.
- alert: BerthLatencyBudgetBurnsSlowly
  expr: |-
    {{ include "berth.slow" (list $ours "6h") }} > 6 * 0.01
    and
    {{ include "berth.slow" (list $ours "30m") }} > 6 * 0.01
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: At {{ $fullname }} {{ `{{ $value | humanizePercentage }}` }} of requests for manifests have taken longer than a second for hours
    description: >-
      Some pods start slowly. Manifests need the metadata store alone: look at its load, at the registries' processor use, and
      at the upstreams of caches.
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
- alert: BerthCollectionBehind
  expr: max(berth_gc_oldest_due_seconds{ {{- $ours -}} }) > 3600
  for: 30m
  labels: {severity: warning}
  annotations:
    summary: What {{ $fullname }} could delete has waited for {{ `{{ $value | humanizeDuration }}` }}
    description: >-
      Deleted content still takes space. Collection is paused (berth-registry gc status), slower than deletes are, or
      fails, as WARN lines then say.
- alert: BerthObjectsNotDeleted
  expr: sum(increase(berth_gc_object_failures_total{ {{- $ours -}} }[30m])) > 0
  for: 1h
  labels: {severity: warning}
  annotations:
    summary: The blob store of {{ $fullname }} refuses to delete objects
    description: >-
      Space is not given back. The registries' WARN lines have the store's answer; most often the credentials may not
      delete.
- alert: BerthUsageDrift
  expr: sum(increase(berth_usage_drift_total{ {{- $ours -}} }[1d])) > 0
  labels: {severity: info}
  annotations:
    summary: The nightly recount of {{ $fullname }} corrected counters of what is stored
    description: >-
      Usage and quotas were told wrong until then. The registries' ERROR lines name tenants and counters.
- alert: BerthRetentionFailing
  expr: sum(increase(berth_retention_failed_runs_total{ {{- $ours -}} }[2h])) > 0
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: Retention policies of {{ $fullname }} could not be run
    description: >-
      Tags stay that should go; nothing is lost. The condition LastRunSucceeded of the RetentionPolicies says why.
- alert: BerthUpstreamUnreachable
  expr: max(berth_pull_through_upstreams{ {{- $ours -}} ,state="failing"}) > 0
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: "Upstreams of {{ $fullname }}'s caches that do not answer: {{ `{{ $value }}` }}"
    description: >-
      What is cached is served on, what is not cannot be pulled. The condition UpstreamReachable of the PullThroughCaches
      says which and why.
- alert: BerthWebhookEventsGivenUp
  expr: sum(increase(berth_webhook_deliveries_total{ {{- $ours -}} ,outcome="dead"}[1h])) > 0
  labels: {severity: warning}
  annotations:
    summary: "{{ $fullname }} has given up on events of webhooks: {{ `{{ $value }}` }} within an hour"
    description: >-
      Somebody does not hear of changes. The status of the Tenants says whose receiver fails and why; given-up events are kept,
      and sent again by berth-registry webhook replay.
- alert: BerthWebhooksBehind
  expr: max(berth_webhook_oldest_seconds{ {{- $ours -}} }) > 900
  for: 15m
  labels: {severity: info}
  annotations:
    summary: An event of {{ $fullname }} has waited for its webhook for {{ `{{ $value | humanizeDuration }}` }}
    description: >-
      Its receiver does not answer, or more slowly than events come. It is tried on; the status of the Tenants says whose it is.
- alert: BerthRegionAway
  expr: max by (region) (berth_region_up{ {{- $ours -}} }) == 0
  for: 10m
  labels: {severity: info}
  annotations:
    summary: The bucket of the region {{ `{{ $labels.region }}` }} does not answer {{ $fullname }}
    description: >-
      Its clients are sent what is at home, which is farther and costs traffic. The registries' WARN lines have its answer.
- alert: BerthStandbyBehind
  expr: max(berth_standby_lag_seconds{ {{- $ours -}} }) > 300
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: "{{ $fullname }} reads from a standby that is {{ `{{ $value | humanizeDuration }}` }} behind"
    description: >-
      What was pushed since is not found here. Look at the replication of Postgres, and at the way to the primary.
- alert: BerthTenantQuotaNearlyFull
  expr: |-
    max by (tenant) (berth_tenant_bytes{ {{- $ours -}} })
      / max by (tenant) (berth_tenant_quota_bytes{ {{- $ours -}} }) > 0.9
  for: 15m
  labels: {severity: info}
  annotations:
    summary: Tenant {{ `{{ $labels.tenant }}` }} has used {{ `{{ $value | humanizePercentage }}` }} of its storage
    description: >-
      Its pushes are refused once nothing is left. It deletes, has a retention policy, or gets more.
- alert: BerthReplicaBehind
  expr: |-
    berth_config_version{ {{- $ours -}} }
      < on () group_left () max(berth_config_version{ {{- $ours -}} } offset 2m)
  for: 2m
  labels: {severity: warning}
  annotations:
    summary: "{{ `{{ $labels.pod }}` }} serves an old version of the configuration"
    description: >-
      Tenants, rights and policies are at it as they were minutes ago, and Programmed stays Unknown. Its WARN lines say
      what keeps it; a restart reads everything anew.
- alert: BerthConfigurationNotFollowed
  expr: berth_config_age_seconds{ {{- $ours -}} } > 60
  for: 2m
  labels: {severity: warning}
  annotations:
    summary: "{{ `{{ $labels.pod }}` }} has not read the configuration for {{ `{{ $value | humanizeDuration }}` }}"
    description: >-
      It serves the last one that it has read. Its WARN lines say what the metadata store answers.
- alert: BerthConfigurationUnreadable
  expr: max(berth_config_unreadable_objects{ {{- $ours -}} }) > 0
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: "Objects of {{ $fullname }}'s configuration that a registry cannot read: {{ `{{ $value }}` }}"
    description: >-
      Their last good state is in force. GET /admin/v1/replicas names them; most often an older release runs beside a newer
      one.
- alert: BerthCertificateExpiring
  expr: min by (listener) (berth_tls_certificate_expiry_timestamp_seconds{ {{- $ours -}} }) - time() < 3 * 86400
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: The certificate of the {{ `{{ $labels.listener }}` }} listener of {{ $fullname }} ends in {{ `{{ $value | humanizeDuration }}` }}
    description: >-
      Clients refuse it then. That of the listener admin is the operator's to renew, that of api whoever writes its Secret.
- alert: BerthTracesDropped
  expr: sum(increase(berth_trace_dropped_spans_total{ {{- $ours -}} }[30m])) > 0
  for: 30m
  labels: {severity: info}
  annotations:
    summary: Spans of {{ $fullname }} are lost
    description: >-
      The collector at registry.tracing.endpoint does not answer or is too slow, or too much is sampled. Requests are not
      touched by it.
- alert: BerthTokenRenewalOverdue
  expr: time() - min by (tenant) (berth_operator_token_renewal_timestamp_seconds{ {{- $ours -}} }) > 900
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: A token of tenant {{ `{{ $labels.tenant }}` }} should have been replaced {{ `{{ $value | humanizeDuration }}` }} ago
    description: >-
      Its Secret keeps the old one, which may end: pulls and pushes by it fail then. The condition CredentialsDistributed of
      the Tenant says why.
{{- /* A registry that only reads has none. */}}
{{- if not .Values.registry.readOnly.enabled }}
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
{{- end }}

{{/* Share of requests that the registry answered with an error of its own. Arguments: the selector, the window. */}}
{{- define "berth.errors" -}}
{{- $ours := index . 0 }}{{ $window := index . 1 -}}
(sum(rate(berth_http_requests_total{ {{- $ours -}} ,status="5xx"}[{{ $window }}])) / sum(rate(berth_http_requests_total{ {{- $ours -}} }[{{ $window }}])))
{{- end }}

{{/* The part of requests for manifests that took longer than a second: call with (list <selectors> <window>). */}}
{{- define "berth.slow" -}}
{{- $ours := index . 0 }}{{ $window := index . 1 -}}
(1 - sum(rate(berth_http_request_duration_seconds_bucket{ {{- $ours -}} ,route="manifest",le="1.0"}[{{ $window }}])) / sum(rate(berth_http_request_duration_seconds_count{ {{- $ours -}} ,route="manifest"}[{{ $window }}])))
{{- end }}
