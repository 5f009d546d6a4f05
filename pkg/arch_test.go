// Package pkg holds no code: its test keeps the rules about which package may
// import which, and that every package says what it is for.
package pkg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

type golist struct {
	ImportPath  string
	Doc         string
	GoFiles     []string
	Imports     []string
	TestImports []string
}

func packages(t *testing.T) []golist {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,GoFiles,Imports,TestImports", "vpnd/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []golist
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p golist
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// layer names the group that a package of ours belongs to; the longest prefix
// wins.
func layer(p string) string {
	groups := []struct{ prefix, name string }{
		{"vpnd/cmd/", "cmd"},
		{"vpnd/client/cmd/", "cmd"},
		{"vpnd/client", "client"},
		{"vpnd/tui", "tui"},
		{"vpnd/pkg/fault", "words"}, {"vpnd/pkg/secret", "words"}, {"vpnd/pkg/build", "words"},
		{"vpnd/pkg/rpc", "rpc"},
		{"vpnd/pkg/api/", "api"},
		{"vpnd/pkg/view", "view"},
		{"vpnd/pkg/service", "service"},
		{"vpnd/pkg/services/", "services"},
		{"vpnd/pkg/supervise", "supervise"},
		{"vpnd/pkg/daemon", "daemon"},
		{"vpnd/pkg/cli", "cli"},
		{"vpnd/pkg/demo", "lab"}, {"vpnd/pkg/lab", "lab"}, {"vpnd/pkg/e2e", "e2e"},
	}
	best, name := "", ""
	for _, g := range groups {
		if (p == strings.TrimSuffix(g.prefix, "/") || strings.HasPrefix(p, strings.TrimSuffix(g.prefix, "/")+"/")) && len(g.prefix) > len(best) {
			best, name = g.prefix, g.name
		}
	}
	if name == "" && strings.HasPrefix(p, "vpnd/pkg/") {
		return "mechanism"
	}
	return name
}

// mayImport is the table of DESIGN: who may import what of ours.
var mayImport = map[string][]string{
	"cmd":       {"daemon", "cli", "client"},
	"cli":       {"tui", "view", "api", "rpc", "words", "lab", "cli"},
	"tui":       {"view", "api", "rpc", "words"},
	"client":    {"api", "rpc", "words", "mechanism", "client"},
	"daemon":    {"supervise", "service", "services", "api", "rpc", "words", "mechanism"},
	"services":  {"service", "services", "api", "rpc", "mechanism", "words"},
	"service":   {"api", "rpc", "mechanism", "words"},
	"supervise": {"words"},
	"mechanism": {"mechanism", "words"},
	"view":      {"api", "rpc", "words"},
	"api":       {"api", "rpc", "words"},
	"rpc":       {"words"},
	"words":     {},
	"lab":       {"lab", "mechanism", "words"},
	"e2e":       {"e2e", "lab", "api", "rpc", "words", "mechanism"},
}

func TestImportsPointDownward(t *testing.T) {
	for _, p := range packages(t) {
		from := layer(p.ImportPath)
		if p.ImportPath == "vpnd/pkg" {
			continue
		}
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s belongs to no layer: give it one here, and in docs/architecture.md", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, "vpnd/") {
				continue
			}
			to := layer(imp)
			if !slices.Contains(allowed, to) {
				t.Errorf("%s (%s) imports %s (%s); %s may import only %s", p.ImportPath, from, imp, to, from, strings.Join(allowed, ", "))
			}
			if from == "services" && to == "services" && !strings.HasPrefix(imp, serviceOf(p.ImportPath)) {
				t.Errorf("%s imports %s: a service knows its siblings by pkg/api only", p.ImportPath, imp)
			}
		}
	}
}

func serviceOf(p string) string {
	rest := strings.TrimPrefix(p, "vpnd/pkg/services/")
	name, _, _ := strings.Cut(rest, "/")
	return "vpnd/pkg/services/" + name
}

// owners names the one place of ours that may import a library.
var owners = map[string][]string{
	"github.com/spf13/cobra":          {"vpnd/pkg/cli", "vpnd/client"},
	"charm.land/lipgloss":             {"vpnd/pkg/view", "vpnd/pkg/cli", "vpnd/tui"},
	"github.com/google/nftables":      {"vpnd/pkg/nft"},
	"github.com/vishvananda/netlink":  {"vpnd/pkg/link"},
	"golang.zx2c4.com/wireguard":      {"vpnd/pkg/wgdev", "vpnd/pkg/services/canary"},
	"github.com/mattn/go-sqlite3":     {"vpnd/pkg/store", "vpnd/pkg/logstore"},
	"github.com/fsnotify/fsnotify":    {"vpnd/pkg/logtail"},
	"github.com/danielgtaylor/huma":   {"vpnd/pkg/rpc"},
	"github.com/pelletier/go-toml":    {"vpnd/pkg/config", "vpnd/pkg/cli"},
	"golang.org/x/crypto/argon2":      {"vpnd/pkg/passwd"},
	"github.com/godbus/dbus":          {"vpnd/client"},
	"github.com/cretz/bine":           {"vpnd/pkg/torctl"},
	"github.com/miekg/dns":            {"vpnd/pkg/lab"},
	"github.com/golang-jwt/jwt":       {"vpnd/pkg/services/keys", "vpnd/pkg/services/gateway"},
	"gopkg.in/natefinch/lumberjack":   {"vpnd/pkg/service"},
	"github.com/rogpeppe/go-internal": {},
	"go.yaml.in/yaml":                 {"vpnd/pkg/cli"},
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for lib, own := range owners {
				if !strings.HasPrefix(imp, lib) {
					continue
				}
				ok := slices.ContainsFunc(own, func(o string) bool {
					return p.ImportPath == o || strings.HasPrefix(p.ImportPath, o+"/")
				})
				if !ok {
					t.Errorf("%s imports %s, which only %s may", p.ImportPath, imp, strings.Join(own, " and "))
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no doc comment", p.ImportPath)
		}
	}
}

func TestNoPackageIsADrawer(t *testing.T) {
	for _, p := range packages(t) {
		switch base := path.Base(p.ImportPath); base {
		case "util", "utils", "common", "helpers", "misc", "base", "shared", "types", "models":
			t.Errorf("%s: %q names no subject", p.ImportPath, base)
		}
	}
}

// TestLayersExist guards the rules above against checking nothing because a
// folder was renamed.
func TestLayersExist(t *testing.T) {
	seen := map[string]int{}
	for _, p := range packages(t) {
		seen[layer(p.ImportPath)]++
	}
	for _, l := range []string{"words", "rpc", "api", "mechanism", "service", "services", "supervise", "daemon"} {
		if seen[l] == 0 {
			t.Error(fmt.Errorf("no package in layer %s: the rules above check nothing", l))
		}
	}
}
