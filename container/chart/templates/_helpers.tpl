{{- define "coremond.selector" -}}
app: f5-coremond
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "coremond.labels" -}}
{{ include "coremond.selector" . }}
app.kubernetes.io/name: coremond
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "coremond.podLabels" -}}
{{ include "coremond.selector" . }}
app.kubernetes.io/name: coremond
{{- end }}

{{- define "coremond.podAnnotations" -}}
kubectl.kubernetes.io/default-container: coremond
{{- if and .Values.appArmorProfile (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
container.apparmor.security.beta.kubernetes.io/coremond: {{ get (dict "RuntimeDefault" "runtime/default" "Unconfined" "unconfined") .Values.appArmorProfile }}
{{- end }}
{{- end }}

{{- /* A map with another one over it, so that no key is there twice: call with (list text map). */}}
{{- define "coremond.over" -}}
{{- $all := index . 0 | fromYaml -}}
{{- range $key, $value := index . 1 -}}
{{- $_ := set $all $key $value -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{- define "coremond.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary .Values.name "default") }}
{{- end }}

{{- /* The name of what belongs to no namespace. */}}
{{- define "coremond.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace .Values.name | trunc 253 }}
{{- end }}

{{- define "coremond.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The functions below give "true" or nothing. */}}

{{- /* Whether core_pattern may be set; the last of several settings counts, as in a container. */}}
{{- define "coremond.override" -}}
{{- $said := "false" -}}
{{- range .Values.coremon.env -}}
{{- if eq .name "COREMOND_OVERRIDE_CORE_PATTERN" -}}
{{- $said = include "coremond.text" .value | lower -}}
{{- end -}}
{{- end -}}
{{- if has $said (list "true" "t" "1") -}}
true
{{- end -}}
{{- end }}

{{- /* Whether what others on the node collect is taken: with our core_pattern nothing comes there. */}}
{{- define "coremond.apport" -}}
{{- if and (has .Values.platformType (list "auto" "generic" "other")) (not (include "coremond.override" .)) -}}
true
{{- end -}}
{{- end }}

{{- define "coremond.apportFiles" -}}
{{- if and (ne .Values.platformType "auto") (include "coremond.apport" .) -}}
true
{{- end -}}
{{- end }}

{{- define "coremond.systemd" -}}
{{- if and (has .Values.platformType (list "auto" "ocp")) (not (include "coremond.override" .)) -}}
true
{{- end -}}
{{- end }}

{{- define "coremond.hostPID" -}}
{{- if kindIs "bool" .Values.hostPID -}}
{{- if .Values.hostPID -}}
true
{{- end -}}
{{- else if not (has .Values.platformType (list "ocp" "robin")) -}}
true
{{- end -}}
{{- end }}

{{- /* Whether something with `enabled` is wanted: call with (list $ enabled apiVersion). */}}
{{- define "coremond.wanted" -}}
{{- $root := index . 0 -}}
{{- $enabled := index . 1 -}}
{{- if kindIs "bool" $enabled -}}
{{- if $enabled -}}
true
{{- end -}}
{{- else if $root.Capabilities.APIVersions.Has (index . 2) -}}
true
{{- end -}}
{{- end }}

{{- define "coremond.scc" -}}
{{- if eq (toString .Values.openshift.scc) "auto" -}}
{{- if or (eq .Values.platformType "ocp") (.Capabilities.APIVersions.Has "security.openshift.io/v1") -}}
true
{{- end -}}
{{- else if .Values.openshift.scc -}}
true
{{- end -}}
{{- end }}

{{- /* Whether the node's own Apport writes its reports where crashes arrive anyway. */}}
{{- define "coremond.reportsInCrash" -}}
{{- if eq .Values.hostPaths.apportReports .Values.hostPaths.crash -}}
true
{{- end -}}
{{- end }}

{{- define "coremond.deletesForeign" -}}
{{- range .Values.coremon.env -}}
{{- if and (eq .name "COREMON_DELETE_FOREIGN_SRC") (has (toString .value | lower) (list "true" "t" "1")) -}}
true
{{- end -}}
{{- end -}}
{{- end }}

{{- define "coremond.tlsSecret" -}}
{{- .Values.grpc.tls.secretName | default (.Values.grpc.tls.certManager.enabled | ternary (printf "%s-grpc" .Values.name) "") -}}
{{- end }}

{{- /* The PodMonitor or the ServiceMonitor, never both: who asks for one takes the place of `auto`. */}}
{{- define "coremond.monitor" -}}
{{- $pods := toString .Values.metrics.podMonitor.enabled -}}
{{- $service := toString .Values.metrics.serviceMonitor.enabled -}}
{{- if eq $pods "true" -}}
PodMonitor
{{- else if eq $service "true" -}}
ServiceMonitor
{{- else if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}
{{- if eq $pods "auto" -}}
PodMonitor
{{- else if eq $service "auto" -}}
ServiceMonitor
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The PriorityClass: who has one made cannot have it called like Kubernetes' own. */}}
{{- define "coremond.priorityClass" -}}
{{- .Values.priorityClass.name | default (.Values.priorityClass.create | ternary (include "coremond.clusterName" .) "system-node-critical") -}}
{{- end }}

{{- /* Whether cores of containers arrive as files that the kernel writes. */}}
{{- define "coremond.filePattern" -}}
{{- if include "coremond.override" . -}}
{{- if ne (include "coremond.mode" .) "socket" -}}
true
{{- end -}}
{{- else if has .Values.platformType (list "auto" "robin") -}}
true
{{- end -}}
{{- end }}

{{- /* The value of a setting, as a program reads it: YAML has large numbers as fractions. */}}
{{- define "coremond.text" -}}
{{- kindIs "float64" . | ternary (. | int64 | toString) (toString .) -}}
{{- end }}

{{- /* How prepare is told to set core_pattern. */}}
{{- define "coremond.mode" -}}
{{- get (dict "socket" "socket" "auto" "auto") .Values.platformType | default "file" -}}
{{- end }}

{{- /* What coremond needs beside being root, without privileges: to read the cores of other users, and
to have a lease on them; to read the memory of crashed processes. */}}
{{- define "coremond.capabilities" -}}
{{- $needed := list "DAC_READ_SEARCH" "LEASE" -}}
{{- if include "coremond.hostPID" . -}}
{{- $needed = append $needed "SYS_PTRACE" -}}
{{- end -}}
{{- concat $needed (.Values.extraCapabilities | default list) | uniq | toJson -}}
{{- end }}

{{- define "coremond.seLinuxType" -}}
{{- if ne (toString .Values.seLinuxType) "auto" -}}
{{ .Values.seLinuxType }}
{{- else if eq .Values.platformType "ocp" -}}
spc_t
{{- end -}}
{{- end }}

{{- /* The security context of a container without privileges that has these capabilities: call with
(list $ capabilities). */}}
{{- define "coremond.unprivileged" -}}
{{- $root := index . 0 -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
capabilities:
  drop: ["ALL"]
  {{- with index . 1 }}
  add: {{ toJson . }}
  {{- end }}
seccompProfile:
  type: RuntimeDefault
{{- with include "coremond.seLinuxType" $root }}
seLinuxOptions:
  type: {{ . | quote }}
{{- end }}
{{- if and $root.Values.appArmorProfile (semverCompare ">=1.30.0-0" $root.Capabilities.KubeVersion.Version) }}
appArmorProfile:
  type: {{ $root.Values.appArmorProfile | quote }}
{{- end }}
{{- end }}

{{- /* What the settings are: our own, and over them those of coremon.env, and of extraEnv. */}}
{{- define "coremond.env" -}}
{{- $own := dict
    "COREMON_KUBERNETES" (or .Values.identity.api .Values.events.enabled | ternary "auto" "off")
    "COREMON_LIST_PODS" (toString .Values.identity.api)
    "COREMON_EVENTS" (toString .Values.events.enabled)
    "COREMON_METRICS_ADDRESS" (printf "%s:19892" .Values.listenHost)
    "QKVIEW_ADDRESS" (printf "%s:19891" .Values.listenHost) -}}
{{- $_ := set $own "COREMON_KUBELET_LOGS" (.Values.identity.kubeletLogs | ternary "/var/log" "off") -}}
{{- if .Values.identity.kubeletLogs -}}
{{- $_ := set $own "COREMON_LOG_LINES" (.Values.identity.logLines | int | toString) -}}
{{- end -}}
{{- with .Values.identity.podLabels -}}
{{- $_ := set $own "COREMON_POD_LABELS" (join "," .) -}}
{{- end -}}
{{- with .Values.identity.podAnnotations -}}
{{- $_ := set $own "COREMON_POD_ANNOTATIONS" (join "," .) -}}
{{- end -}}
{{- if include "coremond.apport" . -}}
{{- $_ := set $own "CRASHAGENT_APPORT_SOCKET" "/run/coremond-apport/apport.socket" -}}
{{- else -}}
{{- $_ := set $own "CRASHAGENT_APPORT_SOCKET" "/run/coremond/apport.socket" -}}
{{- end -}}
{{- if and (include "coremond.apportFiles" .) .Values.apport.reports -}}
{{- $_ := set $own "COREMON_APPORT_REPORTS" (include "coremond.reportsInCrash" . | empty | ternary "/host/apport/reports" "/var/crash") -}}
{{- end -}}
{{- if and (include "coremond.apportFiles" .) .Values.apport.cores -}}
{{- $_ := set $own "COREMON_APPORT_CORES_DIR" "/host/apport/cores" -}}
{{- end -}}
{{- if include "coremond.systemd" . -}}
{{- $_ := set $own "COREMON_SYSTEMD_DIR" "/var/lib/systemd/coredump" -}}
{{- end -}}
{{- range .Values.coremon.env -}}
{{- $_ := set $own .name (include "coremond.text" .value) -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- $_ := unset $own .name -}}
{{- end -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
# What crashes are called by whose own host name cannot be seen: any pod's name would be a lie.
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- range $name, $value := $own }}
- name: {{ $name | quote }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Directories of others on the node, as JSON: name, path there, mountPath, readOnly. */}}
{{- define "coremond.foreign" -}}
{{- $isReadOnly := not (include "coremond.deletesForeign" .) -}}
{{- $found := list -}}
{{- with .Values.hostPaths -}}
{{- if include "coremond.apport" $ -}}
{{- $found = append $found (dict "name" "apport-socket" "path" .apportSocket "mountPath" "/run/coremond-apport" "readOnly" false) -}}
{{- end -}}
{{- if and (include "coremond.apportFiles" $) $.Values.apport.reports (not (include "coremond.reportsInCrash" $)) -}}
{{- $found = append $found (dict "name" "apport-reports" "path" .apportReports "mountPath" "/host/apport/reports" "readOnly" $isReadOnly) -}}
{{- end -}}
{{- if and (include "coremond.apportFiles" $) $.Values.apport.cores -}}
{{- $found = append $found (dict "name" "apport-cores" "path" .apportCores "mountPath" "/host/apport/cores" "readOnly" $isReadOnly) -}}
{{- end -}}
{{- if include "coremond.systemd" $ -}}
{{- $found = append $found (dict "name" "systemd" "path" .systemd "mountPath" "/var/lib/systemd/coredump" "readOnly" $isReadOnly) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}
