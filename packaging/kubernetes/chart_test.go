package kubernetes

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "write deploy/kubernetes/registry.yaml")

// deploy/kubernetes/registry.yaml is what the chart's defaults make.
func TestManifestsAreTheChartsDefaults(t *testing.T) {
	files, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Generated from deploy/helm/registry: go -C packaging test ./kubernetes -run Defaults -update\n" + manifests(files)
	if *update {
		if err := os.WriteFile(plain, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, []byte(want)) {
		t.Errorf("%s differs from the chart; -update writes it", plain)
	}
	if !strings.Contains(files["NOTES.txt"], "3 nodes start") || !strings.Contains(files["NOTES.txt"], "create secret generic registry --from-file=secret=") {
		t.Errorf("notes: %s", files["NOTES.txt"])
	}
}

// "kubectl apply -k" has the same objects.
func TestKustomization(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip(err)
	}
	made, err := exec.CommandContext(t.Context(), kubectl, "kustomize", filepath.Dir(plain)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if o := decode(t, string(made)); !reflect.DeepEqual(o, mustRender(t, nil)) {
		t.Errorf("%s", made)
	}
}

// What the API's types cannot say: the parts name each other.
func TestManifestsFitTogether(t *testing.T) {
	o := mustRender(t, nil)
	labels, spec := o.set.Spec.Template.Labels, o.set.Spec.Template.Spec
	selectors := map[string]map[string]string{
		"StatefulSet": o.set.Spec.Selector.MatchLabels, "PodDisruptionBudget": o.budget.Spec.Selector.MatchLabels,
		"NetworkPolicy": o.network.Spec.PodSelector.MatchLabels, "NetworkPolicy from": o.network.Spec.Ingress[0].From[0].PodSelector.MatchLabels,
		"affinity": spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector.MatchLabels,
		"spread":   spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	}
	for name, s := range o.services {
		selectors["Service "+name] = s.Spec.Selector
	}
	for who, selector := range selectors {
		if !maps.Equal(selector, labels) {
			t.Errorf("%s selects %v, the pods have %v", who, selector, labels)
		}
	}
	nodes := o.services[o.set.Spec.ServiceName]
	if nodes.Spec.ClusterIP != "None" || !nodes.Spec.PublishNotReadyAddresses {
		t.Errorf("the service of the nodes: %+v", nodes.Spec)
	}
	if o.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement || o.budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("%s, %v", o.set.Spec.PodManagementPolicy, o.budget.Spec.MaxUnavailable)
	}

	c := spec.Containers[0]
	ports := make(map[string]int32)
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	used := []string{c.StartupProbe.HTTPGet.Port.String(), c.LivenessProbe.HTTPGet.Port.String(), c.ReadinessProbe.HTTPGet.Port.String()}
	for _, s := range o.services {
		for _, p := range s.Spec.Ports {
			if used = append(used, p.TargetPort.String()); p.Port != ports[p.TargetPort.String()] {
				t.Errorf("service %s: port %d is %s", s.Name, p.Port, p.TargetPort.String())
			}
		}
	}
	for _, in := range o.network.Spec.Ingress {
		used = append(used, in.Ports[0].Port.String())
	}
	for _, p := range used {
		if ports[p] == 0 {
			t.Errorf("no port %q", p)
		}
	}
	volumes := []string{o.set.Spec.VolumeClaimTemplates[0].Name}
	for _, v := range spec.Volumes {
		volumes = append(volumes, v.Name)
		if *v.Secret.DefaultMode != 0o440 {
			t.Errorf("secret %s has the mode %o", v.Name, *v.Secret.DefaultMode)
		}
	}
	for _, m := range c.VolumeMounts {
		if !slices.Contains(volumes, m.Name) {
			t.Errorf("no volume %q", m.Name)
		}
	}
	if len(o.network.Spec.Ingress[1].From) > 0 || len(o.network.Spec.Ingress[0].From) == 0 {
		t.Error("the client port is for some, or the bind port for all")
	}

	pod, own := spec.SecurityContext, c.SecurityContext
	if !*pod.RunAsNonRoot || *pod.FSGroup != *pod.RunAsGroup || pod.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*own.AllowPrivilegeEscalation || !*own.ReadOnlyRootFilesystem || !slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%+v %+v", pod, own)
	}
	// 20 s are what the unit of systemd has.
	if left := *spec.TerminationGracePeriodSeconds - c.Lifecycle.PreStop.Sleep.Seconds; left < 20 {
		t.Errorf("%d s are left to the node at its end", left)
	}
}

func TestValuesChangeTheManifests(t *testing.T) {
	o := mustRender(t, values{
		"replicas": 5, "spread": false, "networkPolicy": false, "tls": values{"secret": "certificate"},
		"image":   values{"repository": "mirror/registry", "tag": "1.2.3", "pullSecrets": []any{"pull"}},
		"storage": values{"size": "1Gi", "className": "fast"}, "secret": values{"name": "own", "key": "k"},
		"flags": values{"log-format": "json", "tls12": true, "snapshot-threshold": 1000000}, "podAnnotations": values{"a": "b"},
		"resources": values{"limits": values{"memory": "4Gi"}}, "nodeSelector": values{"disk": "ssd"},
		"tolerations": []any{values{"key": "registry", "operator": "Exists"}},
	})
	spec := o.set.Spec.Template.Spec
	c := spec.Containers[0]
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p.HTTPGet.Scheme != corev1.URISchemeHTTPS {
			t.Errorf("probe: %+v", p.HTTPGet)
		}
	}
	for _, arg := range []string{"-log-format=json", "-tls12=true", "-snapshot-threshold=1000000", "-bootstrap-expect=5", "-cert=/secrets/tls/tls.crt"} {
		if !slices.Contains(c.Args, arg) {
			t.Errorf("no %s in %q", arg, c.Args)
		}
	}
	claim := o.set.Spec.VolumeClaimTemplates[0].Spec
	if *o.set.Spec.Replicas != 5 || o.network != nil || spec.Affinity != nil || c.Image != "mirror/registry:1.2.3" ||
		spec.ImagePullSecrets[0].Name != "pull" || *claim.StorageClassName != "fast" || claim.Resources.Requests.Storage().String() != "1Gi" ||
		spec.Volumes[0].Secret.SecretName != "own" || spec.Volumes[0].Secret.Items[0].Key != "k" || spec.Volumes[1].Secret.SecretName != "certificate" ||
		c.Resources.Limits.Memory().String() != "4Gi" || spec.NodeSelector["disk"] != "ssd" || spec.Tolerations[0].Key != "registry" ||
		o.set.Spec.Template.Annotations["a"] != "b" {
		t.Errorf("%+v", o.set)
	}
}

func TestValuesAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		over values
		want string
	}{
		"no node":                {values{"replicas": 0}, "replicas: want 3, 5 or 7, or 1 for a trial, got 0"},
		"two":                    {values{"replicas": 2}, "replicas: want an odd number: 2 nodes tolerate the loss of no more than 1 do, got 2"},
		"four":                   {values{"replicas": 4}, "replicas: want an odd number"},
		"nine":                   {values{"replicas": 9}, "replicas: want at most 7"},
		"half a node":            {values{"replicas": 2.5}, "replicas"},
		"unknown value":          {values{"replica": 3}, "replica"},
		"no secret":              {values{"secret": values{"name": ""}}, "secret"},
		"the chart's flag":       {values{"flags": values{"data-dir": "/tmp"}}, "flags.data-dir: the chart sets -data-dir"},
		"certificates of probes": {values{"flags": values{"client-ca": "/secrets/tls/ca.crt"}}, "want flags.client-auth verify-if-given"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := render(t, test.over); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	for _, n := range []int{1, 3, 5, 7} {
		if _, err := render(t, values{"replicas": n}); err != nil {
			t.Errorf("%d: %v", n, err)
		}
	}
}
