{{- define "clickscore.labels" -}}
app.kubernetes.io/name: clickscore
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "clickscore.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* What every pod has: no rights, and no writable file but those in /tmp. */ -}}
{{- define "clickscore.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "clickscore.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
envFrom:
  - configMapRef:
      name: {{ .Release.Name }}-settings
  {{- with .Values.credentialsSecret }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- with .Values.kafka.existingSecret }}
env:
  - name: CLICKSCORE_SASL_USERNAME
    valueFrom:
      secretKeyRef:
        name: {{ . }}
        key: username
  - name: CLICKSCORE_SASL_PASSWORD
    valueFrom:
      secretKeyRef:
        name: {{ . }}
        key: password
{{- end }}
{{- end -}}

{{- define "clickscore.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.kafka.caSecret }}
- name: ca
  mountPath: /etc/clickscore/ca
  readOnly: true
{{- end }}
{{- if .Values.bundle.claim }}
- name: bundles
  mountPath: /bundles
  readOnly: true
{{- end }}
{{- end -}}

{{- define "clickscore.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 4Gi
{{- with .Values.kafka.caSecret }}
- name: ca
  secret:
    secretName: {{ . }}
{{- end }}
{{- with .Values.bundle.claim }}
- name: bundles
  persistentVolumeClaim:
    claimName: {{ . }}
    readOnly: true
{{- end }}
{{- end -}}
