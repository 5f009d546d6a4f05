package bridges

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vpnd/pkg/fault"
)

const (
	fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567"
	plain       = "192.0.2.1:443 " + fingerprint
	obfs        = "obfs4 192.0.2.2:443 " + fingerprint + " cert=abc iat-mode=0"
	snow        = "snowflake 192.0.2.3:80 " + fingerprint + " fronts=a.example,b.example url=https://x.example/"
)

// host is a finder that knows these programs only.
func host(names ...string) finder {
	return func(name string) string {
		if slices.Contains(names, name) {
			return "/usr/bin/" + name
		}
		return ""
	}
}

func open(t *testing.T, path string, find finder) *Book {
	t.Helper()
	b, err := load(path, find)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBookSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bridges.json")
	b := open(t, path, host("obfs4proxy"))
	if b.Enabled() || len(b.List()) != 0 || b.TorrcLines() != nil {
		t.Error("a book without a file is not empty")
	}
	for _, line := range []string{"Bridge " + obfs, plain, snow} {
		if _, err := b.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Use(true); err != nil {
		t.Fatal(err)
	}
	again := open(t, path, host("obfs4proxy"))
	if !again.Enabled() || !slices.Equal(again.List(), b.List()) {
		t.Errorf("read %+v, wrote %+v", again.List(), b.List())
	}
	got := b.List()[0]
	if got.Line != obfs || got.Transport != "obfs4" || got.Fingerprint != fingerprint || !got.Available || len(got.ID) != 12 {
		t.Errorf("%+v", got)
	}
	if s := b.List()[2]; s.Available || s.Message != "snowflake-client is not installed" {
		t.Errorf("%+v", s)
	}
	want := []string{"UseBridges 1", "Bridge " + obfs, "Bridge " + plain, "Bridge " + snow, "ClientTransportPlugin obfs4 exec /usr/bin/obfs4proxy"}
	if lines := again.TorrcLines(); !slices.Equal(lines, want) {
		t.Errorf("torrc %q", lines)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOneProgramForSeveralTransports(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "b"), host("lyrebird", "obfs4proxy"))
	for _, line := range []string{obfs, "webtunnel [2001:db8::1]:443 url=https://x.example/", strings.Replace(obfs, "192.0.2.2", "192.0.2.9", 1)} {
		if _, err := b.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Use(true); err != nil {
		t.Fatal(err)
	}
	if l := b.TorrcLines(); len(l) != 5 || l[4] != "ClientTransportPlugin obfs4,webtunnel exec /usr/bin/lyrebird" {
		t.Errorf("%q", l)
	}
}

func TestBrokenBooksAreNotGuessedAt(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "half": `{"enabled":true,"bri`, "no bridge": `{"bridges":["socks5"]}`,
		"twice": `{"bridges":["` + plain + `","Bridge ` + plain + `"]}`, "in use, but none": `{"enabled":true}`,
	} {
		path := filepath.Join(t.TempDir(), "b")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutTorThereIsNoTest(t *testing.T) {
	dir := t.TempDir()
	b := open(t, filepath.Join(dir, "b"), host())
	v, err := b.Add(plain)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Test(t.Context(), v.ID, TestOptions{Binary: "nosuchtor", Dir: dir})
	if f := fault.From(err); f.Code != fault.Unavailable || f.Message != "tor is not installed: nosuchtor is not on PATH" || f.Hint != "apt-get install tor" {
		t.Errorf("%+v", f)
	}
}

func TestAddAndRemoveRefuse(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "b"), host())
	first, err := b.Add(plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add("bridge  " + strings.ToLower(plain)); !errors.Is(err, fault.Exists) {
		t.Errorf("the same again: %v", err)
	}
	if _, err := b.Add("1.2.3.4:5\nControlPort 9051"); !errors.Is(err, fault.Invalid) {
		t.Errorf("two lines: %v", err)
	}
	for _, prefix := range []string{"", "ffffffffffff", first.ID + "0"} {
		if err := b.Remove(prefix); !errors.Is(err, fault.NotFound) {
			t.Errorf("remove %q: %v", prefix, err)
		}
	}
	// 17 ids have two that begin alike.
	for i := range Max - 1 {
		if _, err := b.Add(fmt.Sprintf("192.0.2.9:%d", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Add(snow); !errors.Is(err, fault.Exhausted) {
		t.Errorf("one too many: %v", err)
	}
	seen := map[byte]bool{}
	for _, v := range b.List() {
		if seen[v.ID[0]] {
			if err := b.Remove(v.ID[:1]); !errors.Is(err, fault.Conflict) {
				t.Errorf("remove one of several: %v", err)
			}
			break
		}
		seen[v.ID[0]] = true
	}
	if err := b.Remove(first.ID); err != nil || len(b.List()) != Max-1 {
		t.Errorf("%d left, %v", len(b.List()), err)
	}
}

// A wish for bridges never turns into a tor without.
func TestThereIsAlwaysAWayInWhileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	b := open(t, path, host())
	if err := b.Use(true); !errors.Is(err, fault.Invalid) {
		t.Errorf("none: %v", err)
	}
	o, err := b.Add(obfs)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Use(true); !errors.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Hint, "apt-get install obfs4proxy") {
		t.Errorf("none that works: %v", err)
	}
	p, err := b.Add(plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Use(true), b.Use(true)); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(p.ID); !errors.Is(err, fault.Conflict) {
		t.Errorf("the last that works: %v", err)
	}
	if err := errors.Join(b.Remove(o.ID), b.Use(false), b.Remove(p.ID)); err != nil {
		t.Error(err)
	}
	// The program goes away while its bridge is in use.
	b = open(t, path, host("obfs4proxy"))
	if _, err := b.Add(obfs); err != nil || b.Use(true) != nil {
		t.Fatal(err)
	}
	if l := open(t, path, host()).TorrcLines(); len(l) != 2 || l[0] != "UseBridges 1" {
		t.Errorf("%q", l)
	}
}

func TestNothingChangesWhenTheDiskRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	b := open(t, filepath.Join(dir, "b"), host())
	if _, err := b.Add(plain); err == nil || len(b.List()) != 0 {
		t.Errorf("%v, %v", err, b.List())
	}
}

func FuzzAdd(f *testing.F) {
	for _, s := range []string{plain, obfs, snow, "Bridge " + plain, "x 1.2.3.4:5 a=b a=c", "obfs4 [::1]:1 k=\x1b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		path := filepath.Join(t.TempDir(), "b")
		b := open(t, path, host("obfs4proxy"))
		v, err := b.Add(line)
		if err != nil {
			if !errors.Is(err, fault.Invalid) || len(b.List()) != 0 {
				t.Fatal(err)
			}
			return
		}
		if strings.ContainsFunc(v.Line, func(r rune) bool { return r < ' ' || r > '~' || r == '#' || r == '"' || r == '\\' }) {
			t.Errorf("line %q", v.Line)
		}
		if again := open(t, path, host("obfs4proxy")).List(); len(again) != 1 || again[0] != v {
			t.Errorf("wrote %+v, read %+v", v, again)
		}
		if _, err := b.Add(v.Line); !errors.Is(err, fault.Exists) {
			t.Errorf("its own line is another bridge: %v", err)
		}
	})
}
