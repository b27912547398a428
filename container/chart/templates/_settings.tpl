{{- /* The settings that coremon.env may have: those of conf/coremond.env, less those that are the
chart's. A test keeps the two lists and that file equal. */}}
{{- define "coremond.settings.free" -}}
COREMOND_OVERRIDE_CORE_PATTERN
COREMON_CODEC
COREMON_CORES_INTERVAL
COREMON_CORES_MAX_FILES
COREMON_DELETE_FOREIGN_SRC
COREMON_DELETE_SRC
COREMON_DENY
COREMON_EVENTS
COREMON_IO_PRIORITY
COREMON_KEEP_FREE
COREMON_KUBERNETES
COREMON_LIST_PODS
COREMON_LOG_LINES
COREMON_LOG_SIZE
COREMON_MAX_CORE
COREMON_MAX_USE
COREMON_METRICS_WORKLOADS
COREMON_NICE
COREMON_POD_ANNOTATIONS
COREMON_POD_LABELS
COREMON_RECORD_RETENTION
COREMON_RETENTION
COREMON_RETENTION_INTERVAL
COREMON_ROTATE
COREMON_SCAN_INTERVAL
COREMON_SOURCE_PATTERN
COREMON_WORKERS
CRASHAGENT_IDLE_TIMEOUT
CRASHAGENT_KERNEL_SOCKET
CRASHAGENT_MAX_INTAKES
CRASHAGENT_RESIDENT
CRASHAGENT_SPOOL
CRASHAGENT_SYSTEMD_SOCKET
CRASHAGENT_TIMEOUT
{{- end }}

{{- /* They follow from other values, and from what is mounted where. */}}
{{- define "coremond.settings.own" -}}
COREMON_APPORT_CORES_DIR
COREMON_APPORT_REPORTS
COREMON_CORES_DIR
COREMON_CRASH_DIR
COREMON_KUBELET_LOGS
COREMON_LEVELS_FILE
COREMON_METRICS_ADDRESS
COREMON_RUN_DIR
COREMON_SYSTEMD_DIR
CRASHAGENT_APPORT_SOCKET
NODE_NAME
POD_NAME
QKVIEW_ADDRESS
QKVIEW_TLS_DIR
{{- end }}

{{- /* Refuse settings that do not exist: coremond itself could only pass them over. */}}
{{- define "coremond.settings" -}}
{{- $free := include "coremond.settings.free" . | splitList "\n" -}}
{{- $own := include "coremond.settings.own" . | splitList "\n" -}}
{{- range .Values.coremon.env -}}
{{- if has .name $own -}}
{{- fail (printf "coremon.env: %s is set by the chart itself: see its other values" .name) -}}
{{- else if and (regexMatch "^(COREMON|COREMOND|CRASHAGENT|QKVIEW)_" .name) (not (has .name $free)) -}}
{{- fail (printf "coremon.env: there is no setting %s" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}
