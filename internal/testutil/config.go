package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EditConfig copies a config to dir with fields set, each named by its path with
// dots ("proxy.idle_timeout"), and returns the copy's path. A nil value removes
// the field.
func EditConfig(path, dir string, set map[string]any) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	doc := map[string]any{}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	for field, value := range set {
		at := doc
		keys := strings.Split(field, ".")
		for _, k := range keys[:len(keys)-1] {
			next, ok := at[k].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[k] = next
			}
			at = next
		}
		last := keys[len(keys)-1]
		if value == nil {
			delete(at, last)
		} else {
			at[last] = value
		}
	}
	if b, err = yaml.Marshal(doc); err != nil {
		return "", err
	}
	out, err := os.CreateTemp(dir, "*-"+filepath.Base(path))
	if err != nil {
		return "", err
	}
	defer out.Close()
	_, err = out.Write(b)
	return out.Name(), err
}
