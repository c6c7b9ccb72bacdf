{{- define "ratchet.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "ratchet.selector" -}}
app.kubernetes.io/name: ratchet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "ratchet.labels" -}}
{{ include "ratchet.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "ratchet.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}

{{/* Variables of every part, as a map; secrets are named as files. */}}
{{- define "ratchet.variables" -}}
RATCHET_HOME: /var/lib/ratchet
RATCHET_CACHE: /var/cache/ratchet
HOME: /var/lib/ratchet
PREFECT_API_URL: {{ .Values.servers.prefect | quote }}
MLFLOW_TRACKING_URI: {{ .Values.servers.mlflow | quote }}
{{- if .Values.adapters.claim }}
RATCHET_ADAPTER_ROOT: {{ .Values.adapters.mountPath | quote }}
RATCHET_BACKEND_ADAPTER_ROOT: {{ .Values.adapters.asBackendSeesIt | quote }}
{{- end }}
{{- range $name, $key := .Values.secret.keys }}
{{- if $key }}
{{ $name }}_FILE: {{ printf "/run/secrets/ratchet/%s" $key | quote }}
{{- end }}
{{- end }}
{{- with .Values.gateway.backends }}
RATCHET_BACKEND: {{ join " " . | quote }}
{{- end }}
RATCHET_PAGES: /etc/ratchet/pages.yaml
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "ratchet.env" -}}
{{- range $name, $value := include "ratchet.variables" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "ratchet.mounts" -}}
- {name: cache, mountPath: /var/cache/ratchet}
- {name: tmp, mountPath: /tmp}
- {name: files, mountPath: /etc/ratchet, readOnly: true}
- {name: secret, mountPath: /run/secrets/ratchet, readOnly: true}
{{- if .Values.adapters.claim }}
- {name: adapters, mountPath: {{ .Values.adapters.mountPath | quote }}}
{{- end }}
{{- end -}}

{{- define "ratchet.volumes" -}}
- {name: cache, emptyDir: {}}
- {name: tmp, emptyDir: {}}
- name: files
  configMap: {name: {{ include "ratchet.name" . }}-files}
- name: secret
  secret: {secretName: {{ .Values.secret.name | quote }}, defaultMode: 0440}
{{- if .Values.adapters.claim }}
- name: adapters
  persistentVolumeClaim: {claimName: {{ .Values.adapters.claim | quote }}}
{{- end }}
{{- end -}}

{{- define "ratchet.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ratchet.container" -}}
image: {{ include "ratchet.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with .Values.environmentFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
