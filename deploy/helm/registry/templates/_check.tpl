{{- define "registry.labels" -}}
app.kubernetes.io/name: registry
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* What no schema can say. */ -}}
{{- define "registry.check" -}}
{{- $n := int .Values.replicas -}}
{{- if lt $n 1 -}}
{{- fail (printf "replicas: want 3, 5 or 7, or 1 for a trial, got %d" $n) -}}
{{- else if eq (mod $n 2) 0 -}}
{{- fail (printf "replicas: want an odd number: %d nodes tolerate the loss of no more than %d do, got %d" $n (sub $n 1) $n) -}}
{{- else if gt $n 7 -}}
{{- fail (printf "replicas: want at most 7, because a majority has to answer every write, got %d" $n) -}}
{{- end -}}
{{- range $flag, $_ := .Values.flags -}}
{{- if has $flag (list "id" "bind" "bind-advertise" "addr" "advertise" "bootstrap-expect" "registries" "data-dir" "secret-file" "cert" "key") -}}
{{- fail (printf "flags.%s: the chart sets -%s" $flag $flag) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey .Values.flags "client-ca") (ne (toString (get .Values.flags "client-auth")) "verify-if-given") -}}
{{- fail "flags.client-ca: want flags.client-auth verify-if-given too, because the probes have no certificate" -}}
{{- end -}}
{{- end -}}
