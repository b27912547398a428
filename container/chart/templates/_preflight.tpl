{{- /* Provisioners whose volumes can be mounted on one node only. */}}
{{- define "coremond.readWriteOnce" -}}
{{- list
    "rancher.io/local-path"
    "kubernetes.io/no-provisioner"
    "ebs.csi.aws.com" "ebs.csi.eks.amazonaws.com" "kubernetes.io/aws-ebs"
    "pd.csi.storage.gke.io" "kubernetes.io/gce-pd"
    "disk.csi.azure.com" "kubernetes.io/azure-disk"
    "cinder.csi.openstack.org" "kubernetes.io/cinder"
    "dobs.csi.digitalocean.com"
    "csi.hetzner.cloud"
    "linodebs.csi.linode.com"
    "block.csi.vultr.com"
    "csi.scaleway.com"
    "vpc.block.csi.ibm.io"
    "blockvolume.csi.oraclecloud.com"
    "diskplugin.csi.alibabacloud.com"
    "rbd.csi.ceph.com" "rook-ceph.rbd.csi.ceph.com" "openshift-storage.rbd.csi.ceph.com"
    "topolvm.io" "topolvm.cybozu.com"
    "openebs.io/local" "local.csi.openebs.io" "zfs.csi.openebs.io"
  | toJson -}}
{{- end }}

{{- /* Whether there is a cluster: Helm without one knows groups, but not the kinds in them. */}}
{{- define "coremond.inCluster" -}}
{{- if .Capabilities.APIVersions.Has "v1/Namespace" -}}
true
{{- end -}}
{{- end }}

{{- /* Whether the cluster is to be looked at. A look that is forbidden ends Helm. So whoever makes no
ClusterRole, and may have no rights in the cluster, is taken to have them only with preflight=fail. */}}
{{- define "coremond.looks" -}}
{{- $makes := and .Values.rbac.create (or .Values.identity.api .Values.events.enabled) -}}
{{- if or (eq .Values.preflight "fail") (and (eq .Values.preflight "warn") $makes) -}}
true
{{- end -}}
{{- end }}

{{- /* Whether it is there, too. */}}
{{- define "coremond.sees" -}}
{{- if include "coremond.looks" . -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
true
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The directories of the node that the pods have, less those of the kubelet's logs: as JSON, by the
value that names each. */}}
{{- define "coremond.directories" -}}
{{- $found := dict "the chart's own" "/run/coremond" "hostPaths.crash" .Values.hostPaths.crash -}}
{{- if .Values.coremon.hostPath -}}
{{- $_ := set $found "hostPaths.cores" .Values.hostPaths.cores -}}
{{- end -}}
{{- $names := dict "apport-socket" "apportSocket" "apport-reports" "apportReports" "apport-cores" "apportCores" "systemd" "systemd" -}}
{{- range include "coremond.foreign" . | fromJsonArray -}}
{{- $_ := set $found (printf "hostPaths.%s" (get $names .name)) .path -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- /* Other DaemonSets of this chart that may run on the same nodes, as a JSON list: which, what comes of
it, and whether it is the same nodes for certain. They are not where a label that both select has two values. */}}
{{- define "coremond.others" -}}
{{- $found := list -}}
{{- $paths := include "coremond.directories" . | fromJson | values -}}
{{- $selector := .Values.nodeSelector | default dict -}}
{{- range (lookup "apps/v1" "DaemonSet" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $isOwn := and (eq .metadata.namespace $.Release.Namespace) (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "coremond") (not $isOwn) (not .metadata.deletionTimestamp) -}}
{{- $spec := .spec.template.spec -}}
{{- $shared := list -}}
{{- range $spec.volumes -}}
{{- if and .hostPath (has (dig "path" "" (.hostPath | default dict)) $paths) -}}
{{- $shared = append $shared .hostPath.path -}}
{{- end -}}
{{- end -}}
{{- $theirs := $spec.nodeSelector | default dict -}}
{{- $isElsewhere := false -}}
{{- range $key, $value := $selector -}}
{{- if and (hasKey $theirs $key) (ne (get $theirs $key) $value) -}}
{{- $isElsewhere = true -}}
{{- end -}}
{{- end -}}
{{- if and $shared (not $isElsewhere) -}}
{{- $affinity := $.Values.affinity | default dict -}}
{{- $same := and (eq (toJson $theirs) (toJson $selector)) (eq (toJson ($spec.affinity | default dict)) (toJson $affinity)) -}}
{{- $who := printf "there is the DaemonSet %s in the namespace %s, which is a coremond, too" .metadata.name .metadata.namespace -}}
{{- $harm := printf "the two take each other's crashes, out of %s: uninstall one, or give each a nodeSelector with a value of its own for the same label" ($shared | uniq | sortAlpha | join ", ") -}}
{{- $found = append $found (dict "who" $who "harm" $harm "same" $same) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- /* What cannot work in this cluster, as a JSON list of sentences; empty where Helm has none. */}}
{{- define "coremond.problems" -}}
{{- $problems := list -}}
{{- if include "coremond.sees" . -}}
{{- if not .Values.coremon.hostPath -}}
{{- with include "coremond.volumeProblem" . -}}
{{- $problems = append $problems . -}}
{{- end -}}
{{- end -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace | default dict -}}
{{- $enforced := dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" $namespace -}}
{{- if has $enforced (list "baseline" "restricted") -}}
{{- $problems = append $problems (printf "the namespace %s refuses pods with directories of their node (pod-security.kubernetes.io/enforce is %s), so that no pod will start: kubectl label namespace %s --overwrite pod-security.kubernetes.io/enforce=privileged" .Release.Namespace $enforced .Release.Namespace) -}}
{{- end -}}
{{- if eq .Values.platformType "socket" -}}
{{- $old := list -}}
{{- range (lookup "v1" "Node" "" "").items -}}
{{- $node := .metadata.name -}}
{{- $kernel := dig "status" "nodeInfo" "kernelVersion" "" . -}}
{{- with regexFind "^[0-9]+\\.[0-9]+" $kernel -}}
{{- if semverCompare "<6.16-0" . -}}
{{- $old = append $old (printf "%s has %s" $node $kernel) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $old -}}
{{- $problems = append $problems (printf "the kernel's coredump socket takes Linux 6.16, but %s: choose another platformType, or a nodeSelector" (join ", " .)) -}}
{{- end -}}
{{- end -}}
{{- $class := include "coremond.priorityClass" . -}}
{{- if not (or .Values.priorityClass.create (lookup "scheduling.k8s.io/v1" "PriorityClass" "" $class)) -}}
{{- $problems = append $problems (printf "there is no PriorityClass %s, so that no pod will be made: priorityClass.create=true makes it" $class) -}}
{{- end -}}
{{- range include "coremond.others" . | fromJsonArray -}}
{{- if not .same -}}
{{- $problems = append $problems (printf "%s: where both run, %s" .who .harm) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end }}

{{- /* Why the claim would wait for ever, and the pods with it; nothing if it would not. */}}
{{- define "coremond.volumeProblem" -}}
{{- $way := "coremon.hostPath=true keeps the cores in a directory of each node, and needs no volume" -}}
{{- $claim := .Values.persistence.claimName -}}
{{- $class := .Values.persistence.storageClassName -}}
{{- $found := dict -}}
{{- range (lookup "storage.k8s.io/v1" "StorageClass" "" "").items -}}
{{- if $class -}}
{{- if eq .metadata.name $class -}}
{{- $found = . -}}
{{- end -}}
{{- else if eq (dig "metadata" "annotations" "storageclass.kubernetes.io/is-default-class" "" .) "true" -}}
{{- $found = . -}}
{{- end -}}
{{- end -}}
{{- if lookup "v1" "PersistentVolumeClaim" .Release.Namespace $claim -}}
{{- else if not .Values.persistence.create -}}
{{ printf "there is no PersistentVolumeClaim %s, so that the pods will wait for it for ever; %s" $claim $way }}
{{- else if and $class (not $found) -}}
{{ printf "there is no StorageClass %s, so that the claim %s will stay Pending, and the pods with it; %s" $class $claim $way }}
{{- else if not $found -}}
{{ printf "the cluster has no default StorageClass, so that the claim %s will stay Pending, and the pods with it; name one that does ReadWriteMany by persistence.storageClassName; or %s" $claim $way }}
{{- else if has $found.provisioner (include "coremond.readWriteOnce" . | fromJsonArray) -}}
{{ printf "the volumes of the StorageClass %s (%s) cannot be mounted on several nodes (ReadWriteMany), so that the claim %s will stay Pending, and the pods with it; %s" $found.metadata.name $found.provisioner $claim $way }}
{{- end -}}
{{- end }}

{{- /* Refuse what is of a kind that this cluster does not know: call with (list $ api what kind). */}}
{{- define "coremond.known" -}}
{{- $root := index . 0 -}}
{{- if and (include "coremond.inCluster" $root) (not ($root.Capabilities.APIVersions.Has (index . 1))) -}}
{{- fail (printf "preflight: %s, but this cluster knows no %s" (index . 2) (index . 3)) -}}
{{- end -}}
{{- end }}

{{- /* Refuse directories that are not ours to change, or that lie in one another. */}}
{{- define "coremond.refusedPaths" -}}
{{- $paths := include "coremond.directories" . | fromJson -}}
{{- range $value, $path := $paths -}}
{{- if and (ne $value "the chart's own") (or
    (regexMatch "^/(bin|boot|dev|etc|home|lib|lib32|lib64|libx32|media|mnt|opt|proc|root|run|sbin|snap|srv|sys|tmp|usr|var)$" $path)
    (regexMatch "^/(bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|sbin|sys|usr)/" $path)
    (regexMatch "^/var/(backups|cache|lib|lock|log|mail|opt|run|spool|tmp)$" $path)
    (regexMatch "^/var/lib/(containerd|containers|docker|dpkg|etcd|kubelet|rpm)(/|$)" $path)
    (regexMatch "^/var/log/(containers|journal|pods)(/|$)" $path)
    (regexMatch "^(/var)?/run/(containerd|coremond|crio|dbus|docker|lock|netns|systemd|udev|user)(/|$)" $path)) -}}
{{- fail (printf "%s is %s, which is a directory of the system: name one that is there for this alone" $value $path) -}}
{{- end -}}
{{- end -}}
{{- range $value, $path := $paths -}}
{{- range $other, $outer := $paths -}}
{{- $pair := list $value $other | sortAlpha | join " " -}}
{{- $isForeign := and (has $value (list "hostPaths.apportReports" "hostPaths.apportCores" "hostPaths.systemd")) (ne $path $outer) -}}
{{- if and (ne $value $other) (hasPrefix (printf "%s/" $outer) (printf "%s/" $path)) (ne $pair "hostPaths.apportReports hostPaths.crash") (not $isForeign) -}}
{{- fail (printf "%s is %s, and %s is %s: expected directories that do not lie in one another" $value $path $other $outer) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Refuse labels and annotations that the chart itself depends on. */}}
{{- define "coremond.refusedLabels" -}}
{{- $selector := include "coremond.selector" . | fromYaml -}}
{{- range $key, $value := .Values.podLabels -}}
{{- if and (hasKey $selector $key) (ne $value (get $selector $key)) -}}
{{- fail (printf "podLabels: %s is %s for good, for the DaemonSet finds its pods by it" $key (get $selector $key)) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (.Values.persistence.annotations | default dict) "helm.sh/resource-policy" -}}
{{- fail "persistence.annotations: helm.sh/resource-policy is what persistence.keep says" -}}
{{- end -}}
{{- end }}

{{- /* Refuse to install what cannot work, or does harm. */}}
{{- define "coremond.preflight" -}}
{{- include "coremond.refusedPaths" . -}}
{{- include "coremond.refusedLabels" . -}}
{{- if and .Values.priorityClass.create (hasPrefix "system-" (include "coremond.priorityClass" .)) -}}
{{- fail "priorityClass.create: names that begin with system- are those of Kubernetes itself: leave priorityClass.name empty, or choose another" -}}
{{- end -}}
{{- if include "coremond.scc" . -}}
{{- $why := eq (toString .Values.openshift.scc) "auto" | ternary "platformType is ocp" "openshift.scc is true" -}}
{{- include "coremond.known" (list . "security.openshift.io/v1" $why "SecurityContextConstraints, so that it is no OpenShift: choose another platformType, or openshift.scc=false") -}}
{{- end -}}
{{- with include "coremond.monitor" . -}}
{{- include "coremond.known" (list $ "monitoring.coreos.com/v1" (printf "metrics.%s.enabled is true" (untitle .)) .) -}}
{{- end -}}
{{- if include "coremond.wanted" (list . .Values.metrics.rules.enabled "monitoring.coreos.com/v1") -}}
{{- include "coremond.known" (list . "monitoring.coreos.com/v1" "metrics.rules.enabled is true" "PrometheusRule") -}}
{{- end -}}
{{- if .Values.grpc.tls.certManager.enabled -}}
{{- include "coremond.known" (list . "cert-manager.io/v1" "grpc.tls.certManager.enabled is true" "Certificate") -}}
{{- end -}}
{{- if include "coremond.sees" . -}}
{{- range include "coremond.others" . | fromJsonArray -}}
{{- if .same -}}
{{- fail (printf "preflight: %s, and runs on the same nodes: %s; preflight=off installs it all the same" .who .harm) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.preflight "fail" -}}
{{- with include "coremond.problems" . | fromJsonArray -}}
{{- fail (printf "preflight: %s" (join "; " .)) -}}
{{- end -}}
{{- end -}}
{{- if and (kindIs "bool" .Values.metrics.podMonitor.enabled) (kindIs "bool" .Values.metrics.serviceMonitor.enabled) -}}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.podMonitor and metrics.serviceMonitor are both enabled: everything would be counted twice" -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.platformType "socket") (include "coremond.override" .) (not (include "coremond.hostPID" .)) -}}
{{- fail "hostPID is false: the kernel takes a socket as its core_pattern from the host's own mount namespace only" -}}
{{- end -}}
{{- if and .Values.grpc.tls.certManager.enabled (not .Values.grpc.tls.certManager.issuerRef.name) -}}
{{- fail "grpc.tls.certManager.issuerRef.name is empty: name the Issuer or ClusterIssuer" -}}
{{- end -}}
{{- if and .Values.grpc.tls.certManager.enabled .Values.grpc.tls.secretName -}}
{{- fail "grpc.tls.secretName and grpc.tls.certManager are both set: choose one" -}}
{{- end -}}
{{- end }}
