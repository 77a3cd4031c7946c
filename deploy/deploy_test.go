// Package deploy_test reads the manifests of this folder: they must parse, give
// the gateway the one capability and hold a config that it accepts.
package deploy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tungate/tungate/config"
)

func TestCompose(t *testing.T) {
	t.Parallel()
	doc := decode(t, "compose.yaml")[0]
	gateway := node{t, doc}.at("services", "gateway")
	gateway.is("[ALL]", "cap_drop")
	gateway.is("[NET_ADMIN]", "cap_add")
	gateway.is("[/dev/net/tun]", "devices")
	gateway.is("[run -c /etc/tungate/config.yaml]", "command")
	gateway.is("/etc/tungate/config.yaml", "configs", 0, "target")
	node{t, doc}.is("service:gateway", "services", "app", "network_mode")
	checkConfig(t, node{t, doc}.at("configs", "gateway", "content"))
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	docs := decode(t, "kubernetes.yaml")
	configMap, pod := node{t, docs[0]}, node{t, docs[1]}
	configMap.is("ConfigMap", "kind")
	pod.is("Pod", "kind")
	gateway := pod.at("spec", "initContainers", 0)
	gateway.is("Always", "restartPolicy")
	gateway.is("[run -c /etc/tungate/config.yaml]", "args")
	gateway.is("[ALL]", "securityContext", "capabilities", "drop")
	gateway.is("[NET_ADMIN]", "securityContext", "capabilities", "add")
	// Without these the capability on the file would be ignored.
	gateway.is("true", "securityContext", "allowPrivilegeEscalation")
	gateway.is("65532", "securityContext", "runAsUser")
	for i := range 2 {
		name := gateway.at("volumeMounts", i, "name").String()
		pod.is(name, "spec", "volumes", i, "name")
	}
	pod.is(configMap.at("metadata", "name").String(), "spec", "volumes", 0, "configMap", "name")
	checkConfig(t, configMap.at("data", "config.yaml"))
}

func checkConfig(t *testing.T, n node) {
	t.Helper()
	if _, err := config.Parse("config.yaml", []byte(n.String())); err != nil {
		t.Error(err)
	}
}

// decode reads every document of a YAML file.
func decode(t *testing.T, name string) []any {
	t.Helper()
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var docs []any
	for dec := yaml.NewDecoder(bytes.NewReader(src)); ; {
		var doc any
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return docs
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, doc)
	}
}

// node is a place in a YAML document.
type node struct {
	t     *testing.T
	value any
}

func (n node) String() string { return fmt.Sprint(n.value) }

// at follows keys and indexes.
func (n node) at(path ...any) node {
	n.t.Helper()
	for i, step := range path {
		switch v := n.value.(type) {
		case map[string]any:
			n.value = v[step.(string)]
		case []any:
			n.value = v[step.(int)]
		}
		if n.value == nil {
			n.t.Fatalf("nothing at %v", path[:i+1])
		}
	}
	return n
}

// is compares what is at a place, as fmt prints it.
func (n node) is(want string, path ...any) {
	n.t.Helper()
	if got := n.at(path...).String(); got != want {
		n.t.Errorf("%v is %s, want %s", path, got, want)
	}
}
