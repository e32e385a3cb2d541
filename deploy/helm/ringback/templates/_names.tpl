{{- define "ringback.name" -}}
{{- if contains "ringback" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}-ringback{{ end -}}
{{- end }}

{{- define "ringback.selector" -}}
app.kubernetes.io/name: ringback
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ringback.labels" -}}
{{ include "ringback.selector" . }}
app.kubernetes.io/part-of: ringback
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "ringback.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "ringback.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ringback.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "ringback.secretVolumes" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ .Values.existingSecret }}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}
