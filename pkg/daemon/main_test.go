//go:build linux

package daemon_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/config"
	"vpnd/pkg/daemon"
)

// TestMain lets the test binary be vpnd, and a program that is not vpnd's.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "vpnd" {
		os.Exit(m.Run())
	}
	if len(os.Args) == 2 && os.Args[1] == idler {
		time.Sleep(time.Hour)
	}
	if len(os.Args) == 3 && os.Args[1] == caller {
		if err := call(os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(daemon.Main(os.Args[1:]))
}

const idler = "test-idler"

// vpnd runs the program to its end.
func vpnd(t *testing.T, uid uint32, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = append([]string{"vpnd"}, args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestCommandsAndTheirExitStatus(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // nobody has to get in
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name, "vpnd.toml")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "[users]\nmode = \"dynamic\"\n[paths]\nstate = \""+dir+"/state\"\nrun = \""+dir+"/run\"\nlog = \""+dir+"/log\"\n")
	bad := file("bad", "[gateway]\nlissten = 1\n[lanes.vpn]\nport = 0\n")
	badServices := file("services", "")
	if err := os.WriteFile(filepath.Join(dir, "services", "services.json"), []byte(`{"services":{"auth":{"cmdd":1}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	open := file("open", "[users]\nmode = \"dynamic\"\n")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	for _, tc := range []struct {
		args   []string
		uid    uint32
		status int
		stdout string // all of these words
		stderr string
	}{
		{args: []string{}, status: 2, stderr: "Usage:|no command"},
		{args: []string{"help"}, stdout: "vpnd run|vpnd teardown"},
		{args: []string{"--help"}, stdout: "vpnd run"},
		{args: []string{"run", "--help"}, stdout: "vpnd run"},
		{args: []string{"fly"}, status: 2, stderr: `unknown command "fly"|hint: 'vpnd help'`},
		{args: []string{"version"}, stdout: "vpnd |linux/"},
		{args: []string{"version", "now"}, status: 2, stderr: `unexpected argument "now"`},
		{args: []string{"run", "--fast"}, status: 2, stderr: "-fast|hint: 'vpnd help'"},
		{args: []string{"run", "now"}, status: 2, stderr: `unexpected argument "now"`},
		{args: []string{"run", "--config", dir + "/none.toml"}, status: 2, stderr: "none.toml|hint: 'vpnd config default'"},
		{args: []string{"run", "--config", bad}, status: 2, stderr: "gateway.lissten|lanes.vpn.port|" + bad},
		{args: []string{"run", "--config", badServices}, status: 3, stderr: "vpnd init"}, // accounts first
		{args: []string{"run", "--config", open}, status: 4, stderr: "can be written by others|hint: chown root " + open},
		{args: []string{"run", "--config", good}, uid: nobody, status: 4, stderr: "needs root"},
		{args: []string{"init", "--config", good}, uid: nobody, status: 4, stderr: "needs root|--dry-run"},
		{args: []string{"init", "--dry-run", "--config", good}, uid: nobody, stdout: "would make folder " + dir + "/state/keys"},
		{args: []string{"init", "--users", "fancy", "--config", good}, status: 2, stderr: `"fancy"`},
		{args: []string{"teardown", "--config", good}, uid: nobody, status: 4, stderr: "needs root"},
		{args: []string{"config"}, status: 2, stderr: "check, default or services"},
		{args: []string{"config", "mend"}, status: 2, stderr: "config mend"},
		{args: []string{"config", "default", "please"}, status: 2, stderr: "please"},
		{args: []string{"config", "check"}, status: 2, stderr: "usage: vpnd config check FILE"},
		{args: []string{"config", "check", "--help"}, status: 2, stderr: "usage: vpnd config check FILE"},
		{args: []string{"config", "check", good}, uid: nobody, stdout: good + ": ok"},
		{args: []string{"config", "check", bad}, uid: nobody, status: 2, stderr: "gateway.lissten|lanes.vpn.port|hint: "},
		{args: []string{"config", "check", badServices}, status: 2, stderr: "services.json|services.auth.cmdd"},
		{args: []string{"config", "check", dir + "/none.toml"}, status: 3, stderr: "none.toml"},
		{args: []string{"service"}, status: 2, stderr: "started by 'vpnd run'"},
		{args: []string{"service", "tor", "now"}, status: 2, stderr: "started by 'vpnd run'"},
		{args: []string{"service", "none"}, status: 3, stderr: `no service "none"`},
		{args: []string{"service", "keys"}, status: 1, stderr: "keys: VPND_ASSIGNMENT_FD is not set"},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			if tc.status == 3 && tc.args[0] == "run" {
				if _, err := user.Lookup("vpnd-keys"); err == nil {
					t.Skip("vpnd is installed here")
				}
			}
			status, stdout, stderr := vpnd(t, tc.uid, tc.args...)
			if status != tc.status {
				t.Errorf("exit status %d, want %d", status, tc.status)
			}
			for what, pair := range map[string][2]string{"stdout": {stdout, tc.stdout}, "stderr": {stderr, tc.stderr}} {
				for want := range strings.SplitSeq(pair[1], "|") {
					if !strings.Contains(pair[0], want) {
						t.Errorf("%s does not say %q:\n%s", what, want, pair[0])
					}
				}
			}
			if tc.status == 0 && stderr != "" || tc.status != 0 && stdout != "" {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*.lock")); len(left) > 0 {
		t.Errorf("commands that were refused left %v", left)
	}
}

func TestWhatIsPrintedCanBeRead(t *testing.T) {
	status, text, _ := vpnd(t, 0, "config", "default")
	if _, err := config.Parse([]byte(text)); status != 0 || err != nil {
		t.Errorf("config default: %d, %v", status, err)
	}
	path := filepath.Join(t.TempDir(), "vpnd.toml")
	if err := os.WriteFile(path, []byte("[users]\nmode = \"dynamic\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	status, text, _ = vpnd(t, 0, "config", "services", "--config", path)
	var doc struct {
		Services map[string]struct {
			Cmd []string          `json:"cmd"`
			Env map[string]string `json:"env"`
		} `json:"services"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || status != 0 || len(doc.Services) < 8 || doc.Services["keys"].Cmd[2] != "keys" || doc.Services["keys"].Env != nil {
		t.Fatalf("config services: %d, %v\n%s", status, err, text)
	}
	// As it is, it changes nothing.
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "services.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := vpnd(t, 0, "config", "check", path); status != 0 {
		t.Errorf("what 'config services' printed is refused: %s", stderr)
	}
}
