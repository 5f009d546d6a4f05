//go:build linux

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/service"
	"vpnd/pkg/supervise"
)

func dynamic() config.Config {
	c := config.Default()
	c.Users.Mode = "dynamic"
	return c
}

func builtinOf(t *testing.T, c config.Config) map[string]supervise.Spec {
	t.Helper()
	a, err := resolve(c)
	if err != nil {
		t.Fatal(err)
	}
	specs, err := builtin(c, a, "/usr/sbin/vpnd")
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

func TestTheTableIsSound(t *testing.T) {
	ids, names := map[uint32]bool{0: true}, map[string]bool{supervisorName: true}
	for _, e := range table() {
		if ids[e.id] || names[e.name] {
			t.Errorf("%s or its id %d is there twice", e.name, e.id)
		}
		ids[e.id], names[e.name] = true, true
		if got := e.define().Name; got != e.name {
			t.Errorf("the definition of %s is called %s", e.name, got)
		}
	}
	for _, e := range table() {
		for _, callee := range e.calls {
			if !names[callee] || callee == e.name {
				t.Errorf("%s calls %s, which is no other service", e.name, callee)
			}
		}
	}
	specs := builtinOf(t, dynamic())
	if problems := supervise.Validate(specs); len(problems) > 0 {
		t.Errorf("the built-in services: %v", problems) // a circle in After is one
	}
	if len(specs["lanes"].Capabilities) != 1 {
		t.Errorf("lanes has %v", specs["lanes"].Capabilities)
	}
	for name, s := range specs {
		if name != "lanes" && len(s.Capabilities) > 0 {
			t.Errorf("%s has %v: one process holds CAP_NET_ADMIN, no other any", name, s.Capabilities)
		}
		if wide := s.SocketMode == "0666"; wide != (name == "control") {
			t.Errorf("socket of %s has mode %s", name, s.SocketMode)
		}
	}
}

func TestWhoMayCallWhomIsWhatTheDesignSays(t *testing.T) {
	want := map[string][]string{
		"supervisor": {"control"}, "control": nil, "gateway": {"control"}, "logs": {"control"},
		"keys":     {"auth", "control", "gateway"},
		"auth":     {"control", "gateway", "sessions", "users"},
		"users":    {"auth", "control", "sessions", "tor"},
		"ipam":     {"control", "sessions"},
		"sessions": {"auth", "control", "gateway", "tor", "users"},
		"lanes":    {"canary", "control", "sessions", "tor"},
		"tor":      {"canary", "control", "sessions"},
		"canary":   {"control"},
	}
	for name, callersWanted := range want {
		got := callers(name)
		slices.Sort(got)
		if !slices.Equal(got, callersWanted) {
			t.Errorf("%s may be called by %v, want %v", name, got, callersWanted)
		}
	}
	c := dynamic()
	a, err := resolve(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, spec := range builtinOf(t, c) {
		data, err := assignment(c, a, spec, name)
		if err != nil {
			t.Fatal(err)
		}
		var got service.Assignment
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Callers) != len(want[name]) {
			t.Errorf("%s is told of the callers %v", name, got.Callers)
		}
		for caller, uid := range got.Callers {
			if e, _ := lookup(caller); uid != c.Users.Base+e.id || !slices.Contains(want[name], caller) {
				t.Errorf("%s is told that %s is uid %d", name, caller, uid)
			}
		}
		for callee := range got.Siblings {
			if !slices.Contains(want[callee], name) {
				t.Errorf("%s is told where %s is", name, callee)
			}
		}
		if got.Listeners != 1+len(spec.Listen) {
			t.Errorf("%s is told of %d listeners", name, got.Listeners)
		}
	}
	if data, err := assignment(c, a, supervise.Spec{}, "foreign"); data != nil || err != nil {
		t.Errorf("a foreign program is told %s, %v", data, err)
	}
}

// leaves gives the path of every key of the configuration, and sets another
// value there.
func leaves(v reflect.Value, path string, each func(path string, change func())) {
	for i := range v.NumField() {
		f, ft := v.Field(i), v.Type().Field(i)
		p := strings.TrimPrefix(path+"."+ft.Tag.Get("toml"), ".")
		switch {
		case f.Type() == reflect.TypeFor[netip.Prefix]():
			each(p, func() { f.Set(reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24"))) })
		case f.Kind() == reflect.Struct:
			leaves(f, p, each)
		case f.Kind() == reflect.String:
			each(p, func() { f.SetString(f.String() + "x") })
		case f.Kind() == reflect.Bool:
			each(p, func() { f.SetBool(!f.Bool()) })
		case f.CanInt():
			each(p, func() { f.SetInt(f.Int() + 1) })
		case f.CanUint():
			each(p, func() { f.SetUint(f.Uint() + 1) })
		case f.Kind() == reflect.Slice:
			each(p, func() { f.Set(reflect.Append(f, reflect.Zero(f.Type().Elem()))) })
		default:
			each(p, nil)
		}
	}
}

func TestAChangeConcernsThoseWhoGoByIt(t *testing.T) {
	all := []string{"auth", "canary", "control", "gateway", "ipam", "keys", "lanes", "logs", "sessions", "tor", "users"}
	// The longest prefix counts.
	want := map[string][]string{
		"server":                 {"control", "keys", "sessions"},
		"gateway":                {"gateway"},
		"gateway.listen":         {"gateway", "lanes", "sessions"},
		"auth":                   {"auth"},
		"auth.argon2":            {"auth", "users"},
		"sessions":               {"sessions"},
		"ipam":                   {"ipam"},
		"lanes":                  {"lanes"},
		"lanes.keepalive":        {"sessions"},
		"lanes.vpn":              {"lanes", "sessions"},
		"lanes.tor":              {"lanes", "sessions"},
		"lanes.vpn.ipv4":         {"ipam", "lanes", "sessions"},
		"lanes.vpn.ipv6":         {"ipam", "lanes", "sessions"},
		"lanes.tor.ipv4":         {"ipam", "lanes", "sessions", "tor"},
		"lanes.tor.ipv6":         {"ipam", "lanes", "sessions", "tor"},
		"tor":                    {"tor"},
		"tor.trans_port":         {"canary", "lanes", "tor"},
		"tor.dns_port":           {"canary", "lanes", "tor"},
		"tor.page_port":          {"canary", "lanes", "tor"},
		"leaktest":               {"canary"},
		"control":                {"control"},
		"log":                    all,
		"logs":                   {"logs"},
		"paths.log":              {"logs"}, // where it looks when it is told nothing else
		"paths.run":              all,      // the sockets are there
		"users":                  nil,      // needs a restart of vpnd
		"users.base":             all,
		"paths":                  nil,
		"sessions.heartbeat_ttl": {"sessions"},
	}
	before := builtinOf(t, dynamic())
	count := 0
	c := dynamic()
	leaves(reflect.ValueOf(&c).Elem(), "", func(path string, change func()) {
		if path == "users.mode" {
			return // its other value needs accounts on this host
		}
		if change == nil {
			t.Errorf("%s: this test cannot change it", path)
			return
		}
		count++
		old := c
		c.Gateway.Listen, c.Lanes.BlockedPorts = slices.Clone(c.Gateway.Listen), slices.Clone(c.Lanes.BlockedPorts)
		change()
		var changed []string
		for name, s := range builtinOf(t, c) {
			if !reflect.DeepEqual(s, before[name]) {
				changed = append(changed, name)
			}
		}
		c = old
		slices.Sort(changed)
		key := path
		for ; ; key = key[:strings.LastIndexByte(key, '.')] {
			if _, ok := want[key]; ok || !strings.Contains(key, ".") {
				break
			}
		}
		if w, ok := want[key]; !ok || !slices.Equal(changed, w) {
			t.Errorf("%s concerns %v, want %v", path, changed, w)
		}
	})
	if count < 30 {
		t.Errorf("only %d keys were changed", count)
	}
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServicesJSONChangesWhatItNames(t *testing.T) {
	base := builtinOf(t, dynamic())
	path := filepath.Join(t.TempDir(), "services.json")
	if out, err := specs(base, path); err != nil || !reflect.DeepEqual(out, base) {
		t.Errorf("without a file: %v", err)
	}
	writeFile(t, path, `{"services": {
		"gateway": {"enabled": false},
		"auth": {"env": {"GODEBUG": "x=1"}, "heartbeat": {"misses": 7}},
		"mine": {"cmd": ["sleep", "1"], "user": "nobody", "after": ["auth"]}
	}}`)
	out, err := specs(base, path)
	if err != nil {
		t.Fatal(err)
	}
	if out["gateway"].IsEnabled() || !out["auth"].IsEnabled() || out["auth"].Heartbeat.Misses != 7 ||
		out["auth"].User != base["auth"].User || len(out["mine"].Cmd) != 2 || len(out) != len(base)+1 {
		t.Errorf("got %+v", out)
	}
	if env := out["auth"].Env; env["GODEBUG"] != "x=1" || env[configHashEnv] != base["auth"].Env[configHashEnv] {
		t.Errorf("environment %v: without the digest, changes of the configuration would not be noticed", env)
	}
	for text, field := range map[string]string{
		`{"services": {"auth": {"socket_path": "/run/x.sock"}}}`:                            "services.auth.socket_path",
		`{"services": {"auth": {"inherit": false, "socket_mode": "", "socket_owner": ""}}}`: "services.auth.inherit",
		`{"services": {"auth": {"cmdd": []}}}`:                                              "services.auth.cmdd",
		`{"services": {"mine": {}}}`:                                                        "services.mine.cmd",
		`{"services": {"mine": {"cmd": ["x"], "after": ["yours"]}}}`:                        "services.mine.after[0]",
		`{"services": {"mine": {"cmd": ["x"], "listen": ["tcp://[::]:4605"]}}}`:             "services.mine.listen[0]",
		`{"service": {}}`: "service",
		`{`:               "services",
	} {
		writeFile(t, path, text)
		_, err := specs(base, path)
		f := fault.From(err)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(f.Message, path) || f.Hint == "" ||
			!slices.ContainsFunc(f.Fields, func(x fault.Field) bool { return x.Path == field }) {
			t.Errorf("%s: got %v, want a problem with %s", text, err, field)
		}
	}
}

func TestWhatRootObeysOnlyRootMayWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.json")
	if err := onlyRoots(path); err != nil {
		t.Errorf("no file: %v", err)
	}
	writeFile(t, path, "{}")
	if err := onlyRoots(path); err != nil {
		t.Errorf("root's: %v", err)
	}
	for name, spoil := range map[string]func() error{
		"group":   func() error { return os.Chmod(path, 0o664) },
		"world":   func() error { return os.Chmod(path, 0o646) },
		"another": func() error { return errors.Join(os.Chmod(path, 0o644), os.Chown(path, 12345, 0)) },
	} {
		if err := errors.Join(os.Chown(path, 0, 0), spoil()); err != nil {
			t.Skip(err)
		}
		if err := onlyRoots(path); !errors.Is(err, fault.Denied) || fault.From(err).Hint == "" {
			t.Errorf("%s may write it: %v", name, err)
		}
	}
}

func inTemp(t *testing.T) config.Config {
	t.Helper()
	c := dynamic()
	dir := t.TempDir()
	c.Paths = config.Paths{State: filepath.Join(dir, "lib", "vpnd"), Run: filepath.Join(dir, "run"), Log: filepath.Join(dir, "log")}
	return c
}

func TestInitMakesWhatIsMissingOnce(t *testing.T) {
	c := inTemp(t)
	first := initSteps(c)
	if len(first) != 3*(1+len(table()))+1 { // the supervisor has a log too
		t.Errorf("%d steps", len(first))
	}
	for _, s := range first {
		if !strings.HasPrefix(s.words, "make folder ") {
			t.Errorf("dynamic mode would %s", s.words)
		}
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.words, err)
		}
	}
	if again := initSteps(c); len(again) != 0 {
		t.Errorf("the second time there is still to do: %d steps, first %s", len(again), again[0].words)
	}
	a, err := resolve(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders(c, a) {
		var st unix.Stat_t
		if err := unix.Stat(f.path, &st); err != nil {
			t.Fatal(err)
		}
		mode := uint32(0o755)
		switch {
		case f.service && filepath.Dir(f.path) == c.Paths.Log:
			mode = 0o2750
			if f.gid != c.Users.Base+11 {
				t.Errorf("%s is for group %d, which is not the log service", f.path, f.gid)
			}
		case f.service:
			mode = 0o700
			if f.gid != f.uid {
				t.Errorf("%s is for group %d", f.path, f.gid)
			}
		}
		if st.Uid != f.uid || st.Gid != f.gid || st.Mode&0o7777 != mode {
			t.Errorf("%s is %d:%d %o", f.path, st.Uid, st.Gid, st.Mode&0o7777)
		}
	}
}

func TestInitListsAccountsInSystemMode(t *testing.T) {
	if _, err := user.Lookup(accountName("keys")); err == nil {
		t.Skip("vpnd is installed here")
	}
	c := inTemp(t)
	c.Users.Mode = "system"
	c.Control.ViewGroup = "" // none wanted
	var words []string
	for _, s := range initSteps(c) { // never done: nothing is added to this host
		words = append(words, s.words)
	}
	for _, want := range []string{"make group vpnd", "make group vpnd-admin", "make account vpnd-keys", "make folder " + c.Paths.State} {
		if !slices.Contains(words, want) {
			t.Errorf("%q is not among %v", want, words)
		}
	}
	if slices.Contains(words, "make group ") || slices.Contains(words, "make group vpnd-view") {
		t.Errorf("a group that nobody wants: %v", words)
	}
	_, err := resolve(c)
	if f := fault.From(err); !errors.Is(err, fault.NotFound) || !strings.Contains(f.Hint, "vpnd init") || !strings.Contains(err.Error(), "vpnd-keys") {
		t.Errorf("missing accounts: %v", err)
	}
}

func TestFoldersThatAreSomebodyElsesAreRefused(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, filepath.Join(dir, "file"), "")
	for _, f := range []folder{
		{path: link}, {path: link, service: true}, {path: file}, {path: file, service: true}, {path: open},
	} {
		if err := f.make(); !errors.Is(err, fault.Conflict) || fault.From(err).Hint == "" {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if st, err := os.Stat(open); err != nil || st.Mode().Perm() != 0o777 {
		t.Errorf("a folder that was refused was changed: %v, %v", st.Mode(), err)
	}
	// A service's own is put right: only root can have made it there.
	own := filepath.Join(dir, "own")
	if err := os.Mkdir(own, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := (folder{path: own, uid: 12345, gid: 12346, service: true}).make(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(own, &st); err != nil || st.Uid != 12345 || st.Gid != 12346 || st.Mode&0o7777 != 0o700 {
		t.Errorf("it is %d:%d %o, %v", st.Uid, st.Gid, st.Mode&0o7777, err)
	}
	if err := (folder{path: filepath.Join(file, "below"), service: true}).make(); !errors.Is(err, fault.Unavailable) {
		t.Errorf("below a file: %v", err)
	}
}

func TestTwoShareNeitherStateNorSockets(t *testing.T) {
	c := inTemp(t)
	unlock, err := own(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]config.Paths{
		"both":    c.Paths,
		"state":   {State: c.Paths.State, Run: c.Paths.Run + "2"},
		"sockets": {State: c.Paths.State + "2", Run: c.Paths.Run},
	} {
		o := c
		o.Paths = other
		_, err := own(o)
		if f := fault.From(err); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) || f.Hint == "" {
			t.Errorf("sharing %s: %v", name, err)
		}
	}
	unlock()
	one := c
	one.Paths.Run = c.Paths.State + "/."
	for range 2 {
		unlock, err = own(one)
		if err != nil {
			t.Fatalf("one folder for both, and nobody there: %v", err)
		}
		unlock()
	}
}

func TestReloadSpeaksInLists(t *testing.T) {
	d := &daemon{}
	got := d.changes(supervise.Changes{Stopped: []string{"b"}, Removed: []string{"a"}, Restarted: []string{"c"}}, map[string]supervise.Spec{"b": {}, "c": {}, "d": {}})
	data, err := json.Marshal(got)
	if want := `{"started":[],"stopped":["a","b"],"restarted":["c"],"updated":[],"unchanged":["d"]}`; err != nil || string(data) != want {
		t.Errorf("got %s, %v, want %s", data, err, want)
	}
}

func TestStatusWordsOfAProgram(t *testing.T) {
	exited := time.Now()
	d := &daemon{config: dynamic(), specs: map[string]supervise.Spec{"mine": {Cmd: []string{"sleep", "1"}}, "keys": {User: "5:5"}}}
	got := d.describe(supervise.Status{Name: "mine", State: supervise.Running, PongLatency: supervise.Duration(1500 * time.Microsecond),
		LastExit: &supervise.Exit{Words: "killed by SIGKILL", Time: exited}})
	if got.User != "root" || got.PingMicros != 1500 || got.LastExit != "killed by SIGKILL" || !got.LastExitAt.Equal(exited) || got.Command[0] != "sleep" {
		t.Errorf("got %+v", got)
	}
	if got := d.describe(supervise.Status{Name: "keys"}); got.User != "5:5" {
		t.Errorf("dynamic mode: user %s", got.User)
	}
	d.config.Users.Mode = "system"
	if got := d.describe(supervise.Status{Name: "keys"}); got.User != "vpnd-keys" {
		t.Errorf("system mode: user %s", got.User)
	}
}
