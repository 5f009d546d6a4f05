package dns_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vpnd/client/dns"
)

const before = "# from the network\nnameserver 192.168.1.1\nsearch home.arpa\noptions edns0\n"

var (
	setting = dns.Setting{Interface: "vpn0", Index: 7, Servers: []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::fe")}}
	other   = dns.Setting{Interface: "vpn0", Index: 7, Servers: []netip.Addr{netip.MustParseAddr("10.9.0.1")}}
)

// machine is an /etc of its own, without resolvconf and without a system bus.
type machine struct {
	t     *testing.T
	paths dns.Paths
	r     *dns.Resolver
	rec   *dns.Record
	saved int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("PATH", filepath.Join(dir, "bin"))
	m := &machine{t: t, paths: dns.Paths{
		ResolvConf: filepath.Join(dir, "resolv.conf"), Upstream: filepath.Join(dir, "upstream.conf"),
		Interfaces: filepath.Join(dir, "interface-order"), SystemBus: "unix:path=" + filepath.Join(dir, "bus"),
	}}
	m.r = dns.New(m.paths)
	return m
}

func (m *machine) write(path, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) set(s dns.Setting) {
	m.t.Helper()
	err := m.r.Set(m.t.Context(), s, m.rec, func(r dns.Record) error { m.rec = &r; m.saved++; return nil })
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) undo() {
	m.t.Helper()
	if err := dns.New(m.paths).Undo(m.t.Context(), *m.rec); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) content() string {
	m.t.Helper()
	b, err := os.ReadFile(m.paths.ResolvConf)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return string(b)
}

func (m *machine) wantServers(want ...string) {
	m.t.Helper()
	var got []string
	for line := range strings.Lines(m.content()) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "nameserver "); ok {
			got = append(got, s)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		m.t.Errorf("got name servers %v, want %v", got, want)
	}
}

func TestFileIsReplacedAndPutBack(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	if err := os.Chmod(m.paths.ResolvConf, 0o640); err != nil {
		t.Fatal(err)
	}
	m.set(setting)
	if m.rec.Method != dns.File {
		t.Errorf("used %s", m.rec.Method)
	}
	m.wantServers("9.9.9.9", "2620:fe::fe")
	m.set(setting) // again
	m.set(other)   // another lane
	m.wantServers("10.9.0.1")
	m.undo()
	if got := m.content(); got != before {
		t.Errorf("got %q", got)
	}
	if info, _ := os.Stat(m.paths.ResolvConf); info.Mode() != 0o640 {
		t.Errorf("got mode %v", info.Mode())
	}
	m.undo() // twice does no harm
	if got := m.content(); got != before {
		t.Errorf("undone twice: got %q", got)
	}
	entries, _ := os.ReadDir(filepath.Dir(m.paths.ResolvConf))
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestFileThatWasNotThereIsRemoved(t *testing.T) {
	m := newMachine(t)
	m.set(setting)
	m.wantServers("9.9.9.9", "2620:fe::fe")
	m.undo()
	if _, err := os.Lstat(m.paths.ResolvConf); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

func TestALinkStaysALink(t *testing.T) {
	m := newMachine(t)
	target := filepath.Join(filepath.Dir(m.paths.ResolvConf), "run", "theirs.conf")
	m.write(target, before)
	if err := os.Symlink("run/theirs.conf", m.paths.ResolvConf); err != nil {
		t.Fatal(err)
	}
	m.set(setting)
	m.wantServers("9.9.9.9", "2620:fe::fe")
	if b, _ := os.ReadFile(target); string(b) != before {
		t.Errorf("the file behind the link was changed: %q", b)
	}
	m.undo()
	if link, err := os.Readlink(m.paths.ResolvConf); err != nil || link != "run/theirs.conf" {
		t.Errorf("got link %q, %v", link, err)
	}
}

func TestWhatAnotherProgramWroteMeanwhileStands(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	m.set(setting)
	const newer = "nameserver 172.16.0.1\n"
	m.write(m.paths.ResolvConf, newer)
	m.undo()
	if got := m.content(); got != newer {
		t.Errorf("got %q", got)
	}
}

func TestWhatAnotherProgramWroteIsWhatToGoBackTo(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	m.set(setting)
	const newer = "nameserver 172.16.0.1\n"
	m.write(m.paths.ResolvConf, newer)
	m.set(setting) // the agent mends
	m.wantServers("9.9.9.9", "2620:fe::fe")
	m.undo()
	if got := m.content(); got != newer {
		t.Errorf("got %q", got)
	}
}

func TestARecordThatWasLostLeavesWorkingServers(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	m.set(setting)
	m.rec = nil
	m.set(other)
	m.undo()
	m.wantServers("9.9.9.9", "2620:fe::fe")
	if strings.Contains(m.content(), "vpn") {
		t.Errorf("still marked as ours: %q", m.content())
	}
}

func TestNothingIsChangedBeforeTheRecordIsStored(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	err := m.r.Set(t.Context(), setting, nil, func(dns.Record) error { return os.ErrPermission })
	if err == nil || m.content() != before {
		t.Errorf("got %v, %q", err, m.content())
	}
}

func TestNoServersMeansNoChange(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	m.set(dns.Setting{Interface: "vpn0", Index: 7})
	if m.content() != before || m.saved != 0 {
		t.Errorf("got %q, saved %d times", m.content(), m.saved)
	}
}

// fakeResolvconf keeps records in a folder and, if it works, makes resolv.conf of
// the latest. It is what Debian's and openresolv have in common.
func (m *machine) fakeResolvconf(works bool) {
	m.t.Helper()
	bin := filepath.Join(filepath.Dir(m.paths.ResolvConf), "bin", "resolvconf")
	records := filepath.Join(filepath.Dir(m.paths.ResolvConf), "records")
	conf := m.paths.ResolvConf
	if !works {
		conf = "/dev/null"
	}
	m.write(bin, `#!/bin/sh
PATH=/usr/bin:/bin
mkdir -p `+records+`
case "$1" in
-a) cat > `+records+`/"$2"; cat `+records+`/"$2" > `+conf+` ;;
-d) rm -f `+records+`/"$2"; printf '`+strings.ReplaceAll(before, "\n", `\n`)+`' > `+conf+` ;;
*) exit 1 ;;
esac
`)
	if err := os.Chmod(bin, 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) records() string {
	entries, _ := os.ReadDir(filepath.Join(filepath.Dir(m.paths.ResolvConf), "records"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestResolvconf(t *testing.T) {
	for order, name := range map[string]string{"": "vpn0", "lo\ntun*\n": "tun.vpn0"} {
		m := newMachine(t)
		m.write(m.paths.ResolvConf, before)
		m.fakeResolvconf(true)
		if order != "" {
			m.write(m.paths.Interfaces, order)
		}
		m.set(setting)
		if m.rec.Method != dns.Resolvconf || m.records() != name {
			t.Errorf("used %s, records %q, want %q", m.rec.Method, m.records(), name)
		}
		m.wantServers("9.9.9.9", "2620:fe::fe")
		m.set(setting)
		m.undo()
		if m.records() != "" || m.content() != before {
			t.Errorf("records %q, %q", m.records(), m.content())
		}
		m.undo()
	}
}

func TestResolvconfWithoutEffectIsPassedOver(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	m.fakeResolvconf(false)
	m.set(setting)
	if m.rec.Method != dns.File || m.records() != "" {
		t.Errorf("used %s, records %q", m.rec.Method, m.records())
	}
	m.wantServers("9.9.9.9", "2620:fe::fe")
	m.undo()
	if m.content() != before {
		t.Errorf("got %q", m.content())
	}
}

func TestSystemdsResolvconfIsNotResolvconf(t *testing.T) {
	m := newMachine(t)
	m.write(m.paths.ResolvConf, before)
	m.fakeResolvconf(true)
	bin := filepath.Join(filepath.Dir(m.paths.ResolvConf), "bin")
	if err := os.Rename(filepath.Join(bin, "resolvconf"), filepath.Join(bin, "resolvectl")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("resolvectl", filepath.Join(bin, "resolvconf")); err != nil {
		t.Fatal(err)
	}
	m.set(setting)
	if m.rec.Method != dns.File {
		t.Errorf("used %s", m.rec.Method)
	}
}

func TestServersBefore(t *testing.T) {
	m := newMachine(t)
	if got := m.r.Servers(); len(got) != 0 {
		t.Errorf("no file: got %v", got)
	}
	m.write(m.paths.ResolvConf, "nameserver 192.168.1.1\nnameserver fe80::1%eth0\n#nameserver 1.1.1.1\nnameserver x\n nameserver ::1x\n")
	if got := m.r.Servers(); len(got) != 2 || got[0].String() != "192.168.1.1" || got[1].String() != "fe80::1%eth0" {
		t.Errorf("got %v", got)
	}
	m.write(m.paths.ResolvConf, "nameserver 127.0.0.53\n")
	m.write(m.paths.Upstream, "nameserver 192.168.1.2\n")
	if got := m.r.Servers(); len(got) != 1 || got[0].String() != "192.168.1.2" {
		t.Errorf("behind the stub: got %v", got)
	}
}
