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

{{- /* What cannot work in this cluster, as a JSON list of sentences; empty where Helm has none. */}}
{{- define "coremond.problems" -}}
{{- $problems := list -}}
{{- if and (ne .Values.preflight "off") (lookup "v1" "Namespace" "" "kube-system") -}}
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

{{- /* Refuse to install what cannot work, where that is asked for. */}}
{{- define "coremond.preflight" -}}
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
