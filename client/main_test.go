package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/client"
	"vpnd/client/gate/gatetest"
	"vpnd/pkg/fault"
)

// The test binary is the programs too: it looks at the name it is called by.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "vpn":
		os.Exit(client.Main(os.Args[1:]))
	case "vpnserver":
		os.Exit(serverMain())
	}
	os.Exit(m.Run())
}

// program gives the path of the test binary under another name.
func program(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // for other users too
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, name)
	if err := os.Link(self, path); err == nil {
		return path
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// person is somebody at a command line, with a home and a server of their own.
type person struct {
	t      *testing.T
	vpn    string
	dir    string
	server *gatetest.Server
}

func newPerson(t *testing.T) *person {
	t.Helper()
	t.Parallel()
	s, err := gatetest.New(gatetest.Config{})
	if err == nil {
		err = s.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	p := &person{t: t, vpn: program(t, "vpn"), dir: t.TempDir(), server: s}
	p.write("password", "correct horse\n")
	return p
}

func (p *person) write(name, content string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// result is how a command ended.
type result struct {
	t              *testing.T
	command        string
	status         int
	stdout, stderr string
}

// run runs vpn; $SERVER and $PIN in the arguments are the server's.
func (p *person) run(stdin, line string) *result {
	p.t.Helper()
	line = strings.NewReplacer("$SERVER", p.server.Address().String(), "$PIN", p.server.Pin().String()).Replace(line)
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.vpn, strings.Fields(line)...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(p.dir, "config"), "SUDO_UID=")
	cmd.Stdin = strings.NewReader(stdin)
	return finish(p.t, cmd, line)
}

func finish(t *testing.T, cmd interface{ Run() error }, line string) *result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	r := &result{t: t, command: "vpn " + line}
	if c, ok := cmd.(*exec.Cmd); ok {
		c.Stdout, c.Stderr = &stdout, &stderr
	}
	err := cmd.Run()
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		r.status = ee.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	return r
}

// exits, out and err compare; out and err take regular expressions, and "" for
// nothing at all.
func (r *result) exits(want int) *result {
	r.t.Helper()
	if r.status != want {
		r.t.Errorf("%s: exit status %d, want %d\n%s%s", r.command, r.status, want, r.stdout, r.stderr)
	}
	return r
}

func (r *result) out(want string) *result { r.t.Helper(); return r.match("stdout", r.stdout, want) }
func (r *result) err(want string) *result { r.t.Helper(); return r.match("stderr", r.stderr, want) }

func (r *result) match(name, got, want string) *result {
	r.t.Helper()
	if want == "" && got != "" || !regexp.MustCompile("(?m)"+want).MatchString(got) {
		r.t.Errorf("%s: %s is\n%swant %q", r.command, name, got, want)
	}
	return r
}

const signIn = "login $SERVER --pin $PIN --user alice --password-file password --device laptop"

func TestSigningInAndOut(t *testing.T) {
	p := newPerson(t)
	p.run("", "status").exits(0).out(`^Signed in  no \(vpn login URL\)$`).out(`^Tunnel     down$`).err("")
	p.run("", "up").exits(4).err(`^vpn: nobody is signed in$`).err(`^hint: sign in first: vpn login URL$`).out("")

	p.run("correct horse\n", "login https://$SERVER --pin $PIN --user alice --password-stdin --device laptop").
		exits(0).out(`^Signed in  alice at 127.0.0.1:`).out(`^Device     laptop \(dev_`).err(`^next: sudo vpn up$`)
	p.run("", "status").exits(0).out(`^Signed in  alice at `).out(`^Tunnel     down$`)

	// Server, pin, user and device are remembered.
	p.run("", "login --password-file password").exits(0).err(`signing in as alice`).out(`laptop`)
	p.run("wrong\n", "login --password-stdin").exits(4).err(`user name or password is wrong`).err(`^hint: check user name`)
	p.run("", "login").exits(2).err(`no terminal`).err(`^hint: say --password-stdin`)

	p.run("", "logout").exits(0).out(`^Signed out  of 127`)
	p.run("", "status").exits(0).out(`Signed in  no`)
	p.run("", "up").exits(4)
	p.run("", "login --password-file password").exits(0)
	if n := p.server.Devices(); n != 1 {
		t.Errorf("%d devices, want one that is kept", n)
	}
	if err := p.server.Stop(); err != nil {
		t.Fatal(err)
	}
	p.run("", "logout").exits(0).err(`could not be told`)
	p.run("", "logout").exits(0).err("")
}

func TestPins(t *testing.T) {
	p := newPerson(t)
	p.run("correct horse\n", "login $SERVER --user alice --password-stdin").exits(6).
		err(`is not known yet: its pin is sha256/`).err(`^hint: .*--pin PIN$`)
	if n := p.server.Calls("auth.login"); n != 0 {
		t.Errorf("%d sign-ins were sent to a server that nobody knows", n)
	}
	p.run("", signIn).exits(0)
	p.run("", "login $SERVER --pin abc --user alice --password-file password").exits(2).err(`"abc" is not a pin`).err(`^hint: a pin is sha256/`)

	old := p.server.Pin().String()
	if err := p.server.NewCertificate(); err != nil {
		t.Fatal(err)
	}
	p.run("", "login --password-file password").exits(4).err(`THE SERVER IS NOT THE ONE YOU SIGNED IN TO`).err(`^hint: ask the operator`)
	p.run("", "login -o json --password-file password").exits(4).err(`"code":"denied","reason":"pin_changed"`)
	p.run("", "login $SERVER --pin "+old+" --user alice --password-file password").exits(4)
	p.run("", "logout").exits(0).err(`could not be told`)
	if n := p.server.Calls("auth.login") + p.server.Calls("auth.logout"); n != 1 {
		t.Errorf("%d calls reached the other server", n-1)
	}
	p.run("", signIn).exits(0) // the operator confirmed it
}

func TestMistakes(t *testing.T) {
	p := newPerson(t)
	p.write("empty", "")
	p.run("", "stauts").exits(2).err(`^hint: did you mean: vpn status$`)
	for line, want := range map[string]string{
		"frobnicate":                        `unknown command "frobnicate"`,
		"stauts":                            `unknown command "stauts"`,
		"status --frobnicate":               `unknown flag`,
		"status extra":                      `unknown command "extra"|accepts`,
		"status -o yaml":                    `neither table nor json`,
		"up --lane onion":                   `neither vpn nor tor`,
		"lane onion":                        `neither vpn nor tor`,
		"lane vpn tor":                      `vpn lane takes one argument at most, not 2`,
		"lane tor --timeout 1ms":            `not between 1s and 10m`,
		"login":                             `which server`,
		"login http://$SERVER":              `https only`,
		"login a b":                         `vpn login takes one argument at most, not 2`,
		"login $SERVER --timeout x":         `invalid argument`,
		signIn + " --password-stdin":        `--password-stdin and --password-file exclude each other`,
		"login $SERVER --pin $PIN --user a": `no terminal`,
		"login $SERVER --pin $PIN --user alice --password-file nothing": `password file`,
		"login $SERVER --pin $PIN --user alice --password-file empty":   `is empty`,
		"login $SERVER --pin $PIN --password-file password":             `who signs in`,
	} {
		p.run("", line).exits(2).err("^vpn: .*(" + want + ")").out("")
		r := p.run("", "-o json "+line)
		var e struct {
			Error struct{ Code, Message, Hint string }
		}
		if strings.Contains(line, "-o yaml") {
			continue
		}
		if err := json.Unmarshal([]byte(r.stderr), &e); err != nil || e.Error.Code != "invalid" || e.Error.Message == "" || r.stdout != "" {
			t.Errorf("%s: as JSON %q, %v", line, r.stderr, err)
		}
	}
}

func TestServersInTrouble(t *testing.T) {
	p := newPerson(t)
	p.server.Fail("auth.login", fault.New(fault.Unavailable, "keys are not ready"))
	p.run("", signIn).exits(7).err(`keys are not ready`)
	p.server.Fail("auth.login", fault.New(fault.Throttled, "too many").WithRetryAfter(30*time.Second))
	p.run("", signIn).exits(8).err(`^hint: wait 30s`)
	p.server.Fail("auth.login", fault.New(fault.Conflict, "evil \x1b[2J text").WithHint("\u202Eevil"))
	p.run("", signIn).exits(5).err(`evil \?\[2J text`).err(`^hint: \?evil`)
	if err := p.server.Stop(); err != nil {
		t.Fatal(err)
	}
	p.run("", signIn).exits(7).err(`is not reachable`).err(`^hint: `)
	p.run("", "login vpn.invalid --pin $PIN --user alice --password-file password --timeout 10s").exits(7).err(`vpn.invalid`)
}

func TestADamagedProfileIsNamedAndKept(t *testing.T) {
	p := newPerson(t)
	p.run("", signIn).exits(0)
	const damaged = `{"version":1,`
	p.write("config/vpnd/profile.json", damaged)
	for _, line := range []string{"status", "up", "logout", signIn} {
		p.run("", line).exits(2).err(`profile.json is damaged`).err(`^hint: move it away and sign in again: mv .*/profile.json `)
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, "config/vpnd/profile.json")); err != nil || string(b) != damaged {
		t.Errorf("it is now %q, %v", b, err)
	}
}

func TestJSON(t *testing.T) {
	p := newPerson(t)
	golden(t, "status-nobody.json", p.run("", "status -o json").exits(0).err("").stdout)
	r := p.run("", signIn+" -o json").exits(0).err("")
	var a struct {
		User   struct{ Username string }
		Device string `json:"device_name"`
		Pin    string
	}
	if err := json.Unmarshal([]byte(r.stdout), &a); err != nil || a.User.Username != "alice" || a.Device != "laptop" || a.Pin != p.server.Pin().String() {
		t.Errorf("got %s, %v", r.stdout, err)
	}
	r = p.run("", "status -o json").exits(0).out(`"state": "down"`).out(`"state": "valid"`)
	if regexp.MustCompile(`access_token|refresh_token|private|preshared`).MatchString(r.stdout) {
		t.Errorf("secrets in %s", r.stdout)
	}
	p.run("", "down -o json").exits(0).out(`"state": "down"`)
	p.run("", "version -o json").exits(0).out(`"version": "`)
	p.run("", "logout -o json").exits(0).out(`"signed_out": true`).out(`"server_told": true`)
}

func TestHelp(t *testing.T) {
	p := newPerson(t)
	golden(t, "help.txt", p.run("", "").exits(0).err("").stdout)
	p.run("", "help lane").exits(0).out(`nothing leaves in the clear`)
	p.run("", "help up").exits(0).out(`until 'vpn down'`)
	if strings.Contains(p.run("", "help").stdout, "agent") {
		t.Error("help offers the agent")
	}
}

// Commands that change the profile at the same time do not undo one another.
func TestCommandsAtOnce(t *testing.T) {
	p := newPerson(t)
	p.run("", signIn).exits(0)
	done := make(chan *result)
	for range 4 {
		go func() { done <- p.run("", "login --password-file password") }()
		go func() { done <- p.run("", "status -o json") }()
	}
	for range 8 {
		(<-done).exits(0)
	}
	p.run("", "status").out(`^Signed in  alice`)
}

// golden compares with a file in testdata; UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s:\n%s", name, d)
	}
}
