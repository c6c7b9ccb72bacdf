{{/* A pool's base job template: its words in double braces are Prefect's. */}}
{{- define "ratchet.job" -}}
{{- $of := dict "root" . "part" "training-job" -}}
variables:
  type: object
  properties:
    name: {title: Name, type: string}
    env:
      title: Environment Variables
      type: object
      additionalProperties: {type: string}
      default: {{- include "ratchet.variables" . | nindent 8 }}
    labels: {title: Labels, type: object, additionalProperties: {type: string}}
    annotations: {title: Annotations, type: object, additionalProperties: {type: string}}
    command: {title: Command, type: string}
    namespace: {title: Namespace, type: string, default: {{ .Release.Namespace | quote }}}
    image: {title: Image, type: string, default: {{ include "ratchet.image" . | quote }}}
    finished_job_ttl:
      title: Finished Job TTL
      type: integer
      default: {{ .Values.training.ttlSecondsAfterFinished }}
    job_watch_timeout_seconds: {title: Job Watch Timeout Seconds, type: integer}
    pod_watch_timeout_seconds: {title: Pod Watch Timeout Seconds, type: integer, default: 900}
    stream_output: {title: Stream Output, type: boolean, default: true}
job_configuration:
  name: {{ "{{ name }}" | quote }}
  command: {{ "{{ command }}" | quote }}
  env: {{ "{{ env }}" | quote }}
  labels: {{ "{{ labels }}" | quote }}
  annotations: {{ "{{ annotations }}" | quote }}
  namespace: {{ "{{ namespace }}" | quote }}
  job_watch_timeout_seconds: {{ "{{ job_watch_timeout_seconds }}" | quote }}
  pod_watch_timeout_seconds: {{ "{{ pod_watch_timeout_seconds }}" | quote }}
  stream_output: {{ "{{ stream_output }}" | quote }}
  job_manifest:
    apiVersion: batch/v1
    kind: Job
    metadata:
      generateName: {{ "{{ name }}-" | quote }}
      namespace: {{ "{{ namespace }}" | quote }}
      labels: {{ "{{ labels }}" | quote }}
      annotations: {{ "{{ annotations }}" | quote }}
    spec:
      # a training that was killed is handed over anew by the loop, which knows what it had reached
      backoffLimit: 0
      ttlSecondsAfterFinished: {{ "{{ finished_job_ttl }}" | quote }}
      template:
        metadata:
          labels: {{- include "ratchet.labels" $of | nindent 12 }}
        spec:
          {{- include "ratchet.pod" . | nindent 10 }}
          automountServiceAccountToken: false
          restartPolicy: Never
          {{- with .Values.training.nodeSelector }}
          nodeSelector: {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .Values.training.tolerations }}
          tolerations: {{- toYaml . | nindent 12 }}
          {{- end }}
          containers:
            - name: prefect-job
              {{- omit (include "ratchet.container" . | fromYaml) "image" | toYaml | nindent 14 }}
              image: {{ "{{ image }}" | quote }}
              args: {{ "{{ command }}" | quote }}
              env: {{ "{{ env }}" | quote }}
              resources: {{- toYaml .Values.training.resources | nindent 16 }}
              volumeMounts:
                - {name: home, mountPath: /var/lib/ratchet}
                - {name: shm, mountPath: /dev/shm}
                {{- include "ratchet.mounts" . | nindent 16 }}
          volumes:
            - {name: home, {{ if .Values.training.claim }}persistentVolumeClaim: {claimName: {{ .Values.training.claim | quote }}}{{ else }}emptyDir: {}{{ end }}}
            - {name: shm, emptyDir: {medium: Memory}}
            {{- include "ratchet.volumes" . | nindent 12 }}
{{- end -}}
