{{- /* The settings that coremon.env may have, and of which kind each is: those of conf/coremond.env, less
those that are the chart's. A test keeps the two lists and that file equal. */}}
{{- define "coremond.settings.free" -}}
COREMOND_OVERRIDE_CORE_PATTERN: boolean
COREMON_CODEC: codec
COREMON_CORES_INTERVAL: period
COREMON_CORES_MAX_FILES: count
COREMON_DELETE_FOREIGN_SRC: boolean
COREMON_DELETE_SRC: boolean
COREMON_DENY: names
COREMON_EVENTS: boolean
COREMON_IO_PRIORITY: priority
COREMON_KEEP_FREE: floor
COREMON_KUBERNETES: cluster
COREMON_LIST_PODS: boolean
COREMON_LOG_LINES: count
COREMON_LOG_SIZE: size
COREMON_MAX_CORE: size
COREMON_MAX_USE: size
COREMON_METRICS_WORKLOADS: count
COREMON_NICE: niceness
COREMON_POD_ANNOTATIONS: names
COREMON_POD_LABELS: names
COREMON_RECORD_RETENTION: duration
COREMON_RETENTION: duration
COREMON_RETENTION_INTERVAL: duration
COREMON_ROTATE: boolean
COREMON_SCAN_INTERVAL: period
COREMON_SOURCE_PATTERN: pattern
COREMON_WORKERS: threads
CRASHAGENT_IDLE_TIMEOUT: period
CRASHAGENT_KERNEL_SOCKET: socket
CRASHAGENT_MAX_INTAKES: positive
CRASHAGENT_RESIDENT: boolean
CRASHAGENT_SPOOL: encoding
CRASHAGENT_SYSTEMD_SOCKET: socket
CRASHAGENT_TIMEOUT: period
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

{{- /* What a value of each kind looks like, as the programs read it; nothing at all is the default.
Tests hold it against what they take. */}}
{{- define "coremond.settings.kinds" -}}
boolean:
  like: '^([Tt]|[Ff]|[01]|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$'
  expected: true or false
count:
  like: '^[0-9]+$'
  expected: a whole number such as 0 or 3
positive:
  like: '^0*[1-9][0-9]*$'
  expected: a whole number such as 1 or 16
niceness:
  like: '^0*1?[0-9]$'
  expected: a whole number of at most 19
threads:
  like: '^0*(1?[0-9]?[0-9]|2[0-4][0-9]|25[0-6])$'
  expected: a whole number of at most 256
duration:
  like: '^(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+)$'
  expected: a duration such as 0, 90s, 5m, 1h30m or 2d
period:
  like: '^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+$'
  not: '^[^1-9]*$'
  expected: a duration of more than 0, such as 90s, 5m or 1h30m
size:
  like: '^[0-9]+([KMGT](i?B)?)?$'
  expected: a size such as 0, 512M or 8G
floor:
  like: '^([0-9]+([KMGT](i?B)?)?|0*([0-9]?[0-9](\.[0-9]+)?|100(\.0+)?)%)$'
  expected: a size such as 2G, or a percentage such as 15%
names:
  like: '^[^,]*[^,\s][^,]*(,[^,]*[^,\s][^,]*)*$'
  expected: names with commas between them
codec:
  like: '^(gzip|zstd|lz4)$'
  expected: one of gzip, zstd, lz4
encoding:
  like: '^(gzip|zstd|lz4|raw)$'
  expected: one of gzip, zstd, lz4, raw
priority:
  like: '^(idle|none|best-effort:[0-7])$'
  expected: idle, none, or best-effort:0 to best-effort:7
cluster:
  like: '^(auto|off|/.*)$'
  expected: auto, off, or the absolute path of a kubeconfig
socket:
  like: '^(off|/.{0,106})$'
  expected: off, or an absolute path of at most 107 bytes
pattern:
  like: '^([^%/.|@]|%[%pPiIugsdtcCefEh])([^%/]|%[%pPiIugsdtcCefEh])*$'
  not: '^(%[efEh])+$|^.{128}'
  expected: the name of a file, as in core.%e.%p.%h.%t
{{- end }}

{{- /* Refuse settings that do not exist, or have a value that no program takes: none would start. */}}
{{- define "coremond.settings" -}}
{{- $free := include "coremond.settings.free" . | fromYaml -}}
{{- $own := include "coremond.settings.own" . | splitList "\n" -}}
{{- $kinds := include "coremond.settings.kinds" . | fromYaml -}}
{{- $problems := list -}}
{{- $seen := dict -}}
{{- range $number, $each := concat (.Values.coremon.env | default list) (.Values.extraEnv | default list) -}}
{{- $where := lt $number (len ($.Values.coremon.env | default list)) | ternary "coremon.env" "extraEnv" -}}
{{- $value := include "coremond.text" (get $each "value") -}}
{{- if has .name $own -}}
{{- $problems = append $problems (printf "%s: %s is set by the chart itself: see its other values" $where .name) -}}
{{- else if and (regexMatch "^(COREMON|COREMOND|CRASHAGENT|QKVIEW)_" .name) (not (hasKey $free .name)) -}}
{{- $problems = append $problems (printf "%s: there is no setting %s" $where .name) -}}
{{- else if and (eq $where "extraEnv") (hasKey $seen .name) -}}
{{- $problems = append $problems (printf "extraEnv: %s is in %s already" .name (get $seen .name)) -}}
{{- else if and (eq $where "extraEnv") (has .name (list "COREMOND_OVERRIDE_CORE_PATTERN" "COREMON_DELETE_FOREIGN_SRC")) -}}
{{- $problems = append $problems (printf "extraEnv: %s belongs into coremon.env: what the pods may do depends on it" .name) -}}
{{- else if and $value (hasKey $each "value") (hasKey $free .name) -}}
{{- $kind := get $kinds (get $free .name) -}}
{{- if or (not (regexMatch $kind.like $value)) (and (hasKey $kind "not") (regexMatch (get $kind "not") $value)) -}}
{{- $problems = append $problems (printf "%s: %s is %q: expected %s" $where .name $value $kind.expected) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $seen .name $where -}}
{{- end -}}
{{- with $problems -}}
{{- fail (join "; " .) -}}
{{- end -}}
{{- end }}
