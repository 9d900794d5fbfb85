package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"github.com/santhosh-tekuri/jsonschema/v6"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubejson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	root     = "../.."
	chartDir = root + "/deploy/helm/registry"
	plain    = root + "/deploy/kubernetes/registry.yaml"
)

type values = map[string]any

// chart is the chart's metadata, as .Chart has it.
type chart struct {
	APIVersion, Name, Description, Type, Version, AppVersion, KubeVersion, Home string
	Sources                                                                     []string
}

func readYAML(t *testing.T, file string, to any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = yaml.UnmarshalStrict(data, to)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// merge lays over over base, map by map, as Helm does.
func merge(base, over values) values {
	merged := maps.Clone(base)
	for key, value := range over {
		if inner, ok := value.(values); ok {
			if below, ok := merged[key].(values); ok {
				value = merge(below, inner)
			}
		}
		merged[key] = value
	}
	return merged
}

// render is "helm template registry deploy/helm/registry", with values over the
// defaults. The files are under their base names.
func render(t *testing.T, over values) (files map[string]string, err error) {
	t.Helper()
	var meta chart
	readYAML(t, chartDir+"/Chart.yaml", &meta)
	var defaults, all values
	readYAML(t, chartDir+"/values.yaml", &defaults)
	data, err := json.Marshal(merge(defaults, over)) // numbers become float64, as Helm's are
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	schema, err := jsonschema.NewCompiler().Compile(chartDir + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(all); err != nil {
		return nil, err
	}

	templates := template.New("").Option("missingkey=error")
	functions := sprig.TxtFuncMap()
	functions["fail"] = func(text string) (string, error) { return "", errors.New(text) }
	functions["toYaml"] = func(v any) (string, error) {
		data, err := yaml.Marshal(v)
		return strings.TrimSuffix(string(data), "\n"), err
	}
	functions["include"] = func(name string, data any) (string, error) {
		var out strings.Builder
		err := templates.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	paths, err := filepath.Glob(chartDir + "/templates/*")
	if err != nil || len(paths) < 5 {
		t.Fatalf("%q, %v", paths, err)
	}
	templates.Funcs(functions)
	if _, err := templates.ParseFiles(paths...); err != nil {
		t.Fatal(err)
	}
	files = make(map[string]string)
	release := values{"Name": "registry", "Namespace": "default"}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out strings.Builder
		if err := templates.ExecuteTemplate(&out, name, values{"Values": all, "Release": release, "Chart": meta}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = out.String()
	}
	return files, nil
}

// manifests are what is applied: the rendered files without the notes.
func manifests(files map[string]string) string {
	var documents []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if text := strings.TrimSpace(files[name]); filepath.Ext(name) == ".yaml" && text != "" {
			documents = append(documents, text)
		}
	}
	return strings.Join(documents, "\n---\n") + "\n"
}

// objects are the documents of the manifests, each decoded into its type of the API; a
// field that the type does not have, also by its case, is an error.
type objects struct {
	set      appsv1.StatefulSet
	services map[string]corev1.Service
	budget   policyv1.PodDisruptionBudget
	network  *networkingv1.NetworkPolicy
}

func decode(t *testing.T, manifests string) objects {
	t.Helper()
	o := objects{services: make(map[string]corev1.Service)}
	strict := func(document string, to any) {
		t.Helper()
		data, err := yaml.YAMLToJSONStrict([]byte(document))
		if err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		unknown, err := kubejson.UnmarshalStrict(data, to)
		if err = errors.Join(append(unknown, err)...); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
	}
	for document := range strings.SplitSeq(manifests, "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		switch kind.APIVersion + " " + kind.Kind {
		case "apps/v1 StatefulSet":
			strict(document, &o.set)
		case "v1 Service":
			var s corev1.Service
			strict(document, &s)
			o.services[s.Name] = s
		case "policy/v1 PodDisruptionBudget":
			strict(document, &o.budget)
		case "networking.k8s.io/v1 NetworkPolicy":
			strict(document, &o.network)
		default:
			t.Errorf("unknown kind %+v in\n%s", kind, document)
		}
	}
	return o
}

func mustRender(t *testing.T, over values) objects {
	t.Helper()
	files, err := render(t, over)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, manifests(files))
}
