package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
)

// invocations has one for every command that prints data. A command that is
// missing here fails TestEveryCommandIsTried.
func invocations() map[string]string {
	return map[string]string{
		"status":             "",
		"service list":       "",
		"service get":        "auth",
		"service start":      "auth",
		"service stop":       "auth",
		"service restart":    "auth users",
		"service reload":     "",
		"user create":        "dora erin --generate-password",
		"user list":          "",
		"user get":           "alice",
		"user set":           "alice --device-limit 7",
		"user passwd":        "alice --password-stdin",
		"user suspend":       "alice",
		"user activate":      "bob",
		"user delete":        "bob --accept-risk=destroy-data",
		"device list":        "",
		"device get":         "alice/laptop carol/ノート",
		"device delete":      "alice/laptop -y",
		"session list":       "",
		"session get":        "carol",
		"session kill":       "alice/laptop",
		"session history":    "",
		"ipam status":        "",
		"ipam list":          "",
		"ipam release":       "alice/phone --accept-risk=drop-sessions",
		"lane list":          "",
		"lane get":           "tor",
		"lane up":            "tor",
		"lane down":          "vpn tor --accept-risk=drop-sessions",
		"tor status":         "",
		"tor up":             "",
		"tor down":           "-y --reason moving",
		"tor maintenance":    "--message back_at_six",
		"tor start":          "",
		"tor stop":           "",
		"tor bootstrap":      "",
		"tor check":          "",
		"tor events":         "",
		"tor newid":          "--user alice",
		"tor circuit list":   "",
		"tor circuit get":    "12",
		"tor circuit close":  "12",
		"tor stream list":    "",
		"tor exit list":      "",
		"tor exit get":       "",
		"tor exit set":       "de --user alice --strict",
		"tor exit clear":     "--user carol",
		"tor relay list":     "--country DE --exit",
		"tor bridge list":    "",
		"tor bridge add":     "Bridge 192.0.2.9:443",
		"tor bridge remove":  "3f6c",
		"tor bridge test":    "3f6c 9b11",
		"tor bridge enable":  "",
		"tor bridge disable": "-y",
		"tor isolation get":  "",
		"tor isolation set":  "per-destination",
		"tor onion list":     "",
		"leaktest list":      "",
		"logs count":         "user=alice",
		"logs stats":         "--by service,level",
		"logs top":           "user",
		"logs histogram":     "--by level --bucket 15m --since 2h",
		"logs fields":        "",
		"logs services":      "",
		"logs saved list":    "",
		"logs saved save":    "mine user=alice level>=warn",
		"logs saved run":     "refused",
		"logs saved delete":  "slow -y",
		"logs status":        "",
		"logs purge":         "user=carol --accept-risk=destroy-data",
		"service logs":       "auth",
		"session logs":       "alice/laptop",
		"user logs":          "alice",
		"events":             "",
		"audit list":         "",
		"wait":               "vpnd=ready session/carol=online",
		"version":            "",
	}
}

// silent commands print no data, or data in a form of its own: scripts for
// shells, a manual page, a raw connection, an export.
func silent() map[string]bool {
	return map[string]bool{"completion": true, "man": true, "proxy": true, "logs export": true}
}

func TestEveryCommandIsTried(t *testing.T) {
	leaves := cli.Leaves(t)
	for path, cmd := range leaves {
		if _, ok := invocations()[path]; !ok && !silent()[path] {
			t.Errorf("%s is not tried with every -o", path)
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: summary %q", path, cmd.Short)
		}
		if f := cmd.InheritedFlags().Lookup("output"); f == nil {
			t.Errorf("%s has no -o", path)
		}
	}
	for path := range invocations() {
		if leaves[path] == nil {
			t.Errorf("%s is no command", path)
		}
	}
}

func TestEveryOutputOfEveryCommand(t *testing.T) {
	for path, rest := range invocations() {
		for _, output := range cli.Outputs() {
			t.Run(path+" -o "+output, func(t *testing.T) {
				if output == "name" && strings.Contains(rest, "--generate-password") {
					return // refused: it would hide the password
				}
				for _, tty := range []bool{false, true} {
					term := cli.Terminal{Host: serve(t, fakevpnd.New()), In: "correct horse\n", TTY: tty, Width: 80, Height: 24, Now: fakevpnd.Now(), Env: map[string]string{"NO_COLOR": "1"}}
					r := term.Run(t.Context(), append(strings.Fields(path+" "+rest), "-o", output)...)
					if r.Status != 0 {
						t.Fatalf("exit status %d\n%s", r.Status, r.Err)
					}
					check(t, path, output, r)
					if strings.ContainsAny(r.Out, "\x1b\x07\u009b") {
						t.Errorf("the terminal would obey this: %q", r.Out)
					}
				}
			})
		}
	}
}

// noTable commands tell people in a sentence on standard error.
func noTable(path string) bool {
	return path == "tor circuit close" || path == "tor exit clear" || path == "tor bridge remove" ||
		path == "user delete" || path == "logs saved delete" || path == "user passwd" || path == "device delete" || path == "ipam release"
}

func check(t *testing.T, path, output string, r cli.Result) {
	t.Helper()
	switch output {
	case "json":
		if !json.Valid([]byte(r.Out)) {
			t.Errorf("no JSON: %s", r.Out)
		}
		checkNames(t, []byte(r.Out))
	case "jsonl":
		for line := range strings.Lines(r.Out) {
			if !json.Valid([]byte(line)) || !strings.HasPrefix(line, "{") {
				t.Errorf("no JSON object: %s", line)
			}
		}
	case "yaml":
		var v any
		if err := yaml.Unmarshal([]byte(r.Out), &v); err != nil || v == nil {
			t.Errorf("no YAML: %v\n%s", err, r.Out)
		}
	case "name":
		for line := range strings.Lines(r.Out) {
			if strings.ContainsAny(line, "\t ") && path != "session get" {
				t.Errorf("more than a name: %q", line)
			}
		}
	}
	switch {
	case noTable(path) && (output == "table" || output == "wide"):
		if r.Out != "" || r.Err == "" {
			t.Errorf("stdout %q, stderr %q; want a sentence on stderr", r.Out, r.Err)
		}
	case r.Out == "":
		t.Errorf("nothing was printed")
	}
	if (output == "json" || output == "jsonl" || output == "yaml") && r.Err != "" {
		t.Errorf("notes beside data: %q", r.Err)
	}
}

// checkNames keeps the JSON contract: snake_case names.
func checkNames(t *testing.T, data []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Error(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, sub := range v {
				if k != strings.ToLower(k) || strings.ContainsAny(k, "- ") {
					t.Errorf("field %q is not snake_case", k)
				}
				walk(sub)
			}
		case []any:
			for _, sub := range v {
				walk(sub)
			}
		}
	}
	walk(v)
}

func TestJSONIsAContract(t *testing.T) {
	for path, rest := range invocations() {
		if path == "version" || path == "wait" || strings.Contains(rest, "--generate-password") {
			continue // these hold a build, a time, a random password
		}
		t.Run(path, func(t *testing.T) {
			term := cli.Terminal{Host: serve(t, fakevpnd.New()), In: "correct horse\n", Now: fakevpnd.Now()}
			r := term.Run(t.Context(), append(strings.Fields(path+" "+rest), "-o", "json")...)
			golden(t, strings.ReplaceAll(path, " ", "_")+".json", r.Out)
		})
	}
}

func TestScreensAtEightyColumns(t *testing.T) {
	for path, rest := range map[string]string{
		"status": "", "service list": "", "service get": "sessions", "user list": "", "user get": "alice", "device list": "", "session list": "",
		"session get": "alice/laptop", "session history": "", "ipam status": "", "ipam list": "", "lane list": "", "lane get": "tor", "tor status": "", "tor bootstrap": "",
		"tor check": "", "tor circuit list": "", "tor circuit get": "12", "tor stream list": "", "tor exit list": "", "tor relay list": "", "tor bridge list": "", "tor onion list": "",
		"logs": "", "logs stats": "--by service,level", "logs top": "user", "logs histogram": "--by level --bucket 15m --since 2h", "logs fields": "",
		"logs services": "", "logs saved list": "", "logs status": "", "service logs": "auth", "session logs": "alice/laptop", "user logs": "alice",
		"audit list": "", "events": "", "leaktest list": "", "user delete": "alice --dry-run",
		"version": "--client",
	} {
		t.Run(path, func(t *testing.T) {
			if path == "version" {
				return // holds a build
			}
			term := cli.Terminal{Host: serve(t, fakevpnd.New()), TTY: true, Width: 80, Height: 24, Now: fakevpnd.Now(), Env: map[string]string{"NO_COLOR": "1"}}
			r := term.Run(t.Context(), strings.Fields(path+" "+rest)...)
			golden(t, strings.ReplaceAll(path, " ", "_")+".txt", r.Out)
			for line := range strings.Lines(r.Out) {
				if n := width(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("%d cells: %s", n, line)
				}
			}
		})
	}
}

func TestStatusInTrouble(t *testing.T) {
	w := fakevpnd.New()
	w.Do(func(w *fakevpnd.World) { trouble(w) })
	term := cli.Terminal{Host: serve(t, w), TTY: true, Width: 80, Height: 24, Now: fakevpnd.Now(), Env: map[string]string{"NO_COLOR": "1"}}
	golden(t, "status_trouble.txt", term.Run(t.Context(), "status").Out)
	term.Env = map[string]string{"LANG": "C", "NO_COLOR": "1"}
	r := term.Run(t.Context(), "status")
	golden(t, "status_ascii.txt", r.Out)
	for _, c := range r.Out {
		if c > 0x7f {
			t.Errorf("%q in a locale without it", c)
		}
	}
}
