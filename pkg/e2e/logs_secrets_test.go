//go:build linux

package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/lab"
)

// TestLogsHoldNoSecrets plays a day and looks for every secret of it in what
// the log service keeps.
func TestLogsHoldNoSecrets(t *testing.T) {
	w := newLogsWorld(t, 2, nil, "/var/log/vpnd")
	w.createUser("alice")
	w.createUser("bob")
	laptop := lab.Client(1)
	w.connect(laptop, "alice", "laptop")
	secrets := map[string]string{"password": password}
	wrong := "a wrong password 7731"
	secrets["wrong password"] = wrong
	url := "https://" + w.Machine(lab.Server).IPv4().String()
	w.run(4, wrong+"\n", lab.Client(2), "vpn", "login", url, "--pin", w.pin(), "--user", "bob", "--password-stdin", "--device", "phone")
	changed := "another password 9942"
	secrets["new password"] = changed
	w.ctl(0, changed+"\n", "user", "passwd", "bob", "--password-stdin")
	collect := func() {
		t.Helper()
		b, err := w.Machine(laptop).ReadFile("/run/home/.config/vpnd/profile.json")
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		texts(v, "", func(path, text string) {
			for _, word := range []string{"token", "private", "secret", "key"} {
				if strings.Contains(strings.ToLower(path), word) && len(text) >= 20 && !strings.Contains(path, "public") && !strings.HasSuffix(path, "_of") {
					secrets[fmt.Sprintf("%s %d", path, len(secrets))] = text
				}
			}
		})
	}
	collect()
	for range 2 {
		w.run(0, "", laptop, "vpn", "down")
		w.run(0, "", laptop, "vpn", "up")
		collect()
	}
	err := filepath.WalkDir(w.at("/var/lib/vpnd"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".db") || strings.HasSuffix(path, "-wal") || strings.HasSuffix(path, "-shm") || strings.Contains(path, "/vpnd/logs/") || strings.Contains(path, "/tor/") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err == nil && len(b) >= 32 {
			for line := range strings.FieldsSeq(string(b)) {
				if len(line) >= 32 && !strings.Contains(path, "cert") {
					secrets[strings.TrimPrefix(path, w.root)+" "+line[:4]] = line
				}
			}
			secrets[strings.TrimPrefix(path, w.root)+" in base64"] = base64.StdEncoding.EncodeToString(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.run(0, "", laptop, "vpn", "logout")
	w.settled()
	if len(secrets) < 8 {
		t.Errorf("only %d secrets are known", len(secrets))
	}
	var text bytes.Buffer
	rows := 0
	w.export(func(r *logs.Record) {
		rows++
		fmt.Fprintln(&text, r.Message, r.Event, r.User, r.Device, r.Session, r.RequestID, string(r.Fields))
	})
	for name, secret := range secrets {
		if bytes.Contains(text.Bytes(), []byte(secret)) {
			t.Errorf("%s is in the rows", name)
		}
		for _, f := range w.filesOfStore() {
			if bytes.Contains(f.data, []byte(secret)) {
				t.Errorf("%s is in %s", name, f.path)
			}
		}
	}
	t.Logf("%d secrets looked for in %d rows", len(secrets), rows)
}

// texts calls fn for every text in a JSON value.
func texts(v any, path string, fn func(path, text string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			texts(e, path+"."+k, fn)
		}
	case []any:
		for _, e := range v {
			texts(e, path, fn)
		}
	case string:
		fn(path, v)
	}
}
