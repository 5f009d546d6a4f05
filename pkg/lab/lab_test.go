//go:build linux

package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
)

// whoSees asks a target whom it sees.
func whoSees(t *testing.T, c *http.Client, url string) lab.Seen {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var seen lab.Seen
	if err := json.NewDecoder(resp.Body).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestNewIsFast(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 2})
	if got, want := l.Names(), []string{"internet", "server", "client1", "client2"}; !slices.Equal(got, want) {
		t.Errorf("machines: got %v, want %v", got, want)
	}
	start := time.Now()
	other := newLab(t, lab.Options{Clients: 2})
	took := time.Since(start)
	// Some 40 ms; the limit is for a machine that is busy with other tests.
	if took > 5*time.Second {
		t.Errorf("building took %v", took)
	}
	t.Logf("built in %v", took)
	if other.ID() == l.ID() {
		t.Error("two labs with one id")
	}
}

func TestNewRefuses(t *testing.T) {
	l := newLab(t, lab.Options{})
	for name, tc := range map[string]struct {
		options lab.Options
		want    error
	}{
		"an id that is taken":             {lab.Options{ID: l.ID()}, fault.Exists},
		"an id with a dash":               {lab.Options{ID: "a-b"}, fault.Invalid},
		"an id that leads elsewhere":      {lab.Options{ID: "../x"}, fault.Invalid},
		"too long an id":                  {lab.Options{ID: "abcdefghijklm"}, fault.Invalid},
		"more clients than subnets":       {lab.Options{Clients: lab.MaxClients + 1}, fault.Invalid},
		"fewer clients than none":         {lab.Options{Clients: -1}, fault.Invalid},
		"a directory that no mount takes": {lab.Options{ID: "comma", Dir: "/tmp/a,b"}, fault.Invalid},
		"a directory that is not there":   {lab.Options{ID: "nodir", Dir: "/nonexistent"}, os.ErrNotExist},
		"a target program that fails":     {lab.Options{ID: "notargets", TargetCommand: []string{os.Args[0], "broken-targets"}}, nil},
		"a target program that is none":   {lab.Options{ID: "noprogram", TargetCommand: []string{"/nonexistent"}}, os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := lab.New(t.Context(), tc.options)
			if err == nil {
				_ = got.Close(context.Background())
				t.Fatal("no error")
			}
			if tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if id := tc.options.ID; !strings.ContainsAny(id, "./-") && id != "" && id != l.ID() {
				checkGone(t, id)
			}
		})
	}
	if _, err := lab.Open(l.ID()); err != nil {
		t.Errorf("the lab that was there: %v", err)
	}
}

func TestNewSaysWhatTheTargetsSaid(t *testing.T) {
	_, err := lab.New(t.Context(), lab.Options{TargetCommand: []string{os.Args[0], "broken-targets"}})
	if err == nil || !strings.Contains(err.Error(), "no targets today") {
		t.Errorf("got %v", err)
	}
}

func TestNewCanceledLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := lab.New(ctx, lab.Options{ID: "canceled", Clients: 1})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	checkGone(t, "canceled")
}

func TestTwoLabsDoNotCollide(t *testing.T) {
	a := newLab(t, lab.Options{Clients: 1})
	b := newLab(t, lab.Options{Clients: 1})
	for _, l := range []*lab.Lab{a, b} {
		if _, err := l.Machine(lab.Server).Command(os.Args[0], "replace", "/var/lib/who", l.ID()).CombinedOutput(); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkGone(t, a.ID())
	if err := a.Close(t.Context()); err != nil {
		t.Errorf("closing again: %v", err)
	}
	got, err := b.Machine(lab.Server).ReadFile("/var/lib/who")
	if err != nil || string(got) != b.ID() {
		t.Errorf("the other lab's file: %q %v", got, err)
	}
	seen := whoSees(t, b.Machine("client1").HTTPClient(), "http://203.0.113.10/")
	if seen.Client != b.Machine("client1").IPv4() {
		t.Errorf("the other lab's client is seen as %v", seen.Client)
	}
	// A copy of a's mounts in b's machines would keep a's namespaces alive.
	mounts, err := b.Machine(lab.Server).ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), a.ID()) {
		t.Errorf("mounts of the closed lab are left in the other:\n%s", mounts)
	}
}

func TestClosedLabRefuses(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	m := l.Machine("client1")
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Do(func() error { return nil }); err == nil {
		t.Error("Do in a closed lab")
	}
	if err := m.Command(os.Args[0], "wait").Start(); err == nil {
		t.Error("Start in a closed lab")
	}
	if _, err := lab.Open(l.ID()); !errors.Is(err, fault.NotFound) {
		t.Errorf("Open: %v", err)
	}
}

func TestCloseLeavesALaterLabOfTheSameName(t *testing.T) {
	first := newLab(t, lab.Options{ID: "again"})
	remove(t, "again")
	newLab(t, lab.Options{ID: "again"})
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Open("again"); err != nil {
		t.Errorf("the later one: %v", err)
	}
}

func TestListAndInfo(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	infos, err := lab.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(infos, func(i lab.Info) bool { return i.ID == l.ID() })
	if i < 0 {
		t.Fatalf("not in the list: %v", infos)
	}
	if diff := cmp.Diff(l.Info().Machines, infos[i].Machines, cmp.Comparer(func(a, b lab.MachineInfo) bool {
		return a.Name == b.Name && a.Namespace == b.Namespace && slices.Equal(a.Addresses, b.Addresses)
	})); diff != "" {
		t.Error(diff)
	}
	if !infos[i].Ready || infos[i].Creator != os.Getpid() || infos[i].Machines[2].Namespace != "vpnd-"+l.ID()+"-client1" {
		t.Errorf("got %+v", infos[i])
	}
}

func TestFilesOnADisk(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, lab.Options{Dir: dir})
	if _, err := l.Machine(lab.Server).Command(os.Args[0], "replace", "/var/lib/who", "me").CombinedOutput(); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(dir + "/*/server/*/upper/who")
	if err != nil || len(found) != 1 {
		t.Errorf("the machine's file in %s: %v %v", dir, found, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in %s: %v %v", dir, left, err)
	}
}

// A lab whose maker has ended is used by a second process and removed by a third.
func TestLabOutlivesItsMaker(t *testing.T) {
	const id = "outlives"
	t.Cleanup(func() { remove(t, id); checkGone(t, id) })
	if out, err := exec.Command(os.Args[0], "up", id).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := lab.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	if seen := whoSees(t, l.Machine("client1").HTTPClient(), "http://target.test/"); seen.Client != l.Machine("client1").IPv4() {
		t.Errorf("seen as %v", seen.Client)
	}
	procs, err := l.Processes()
	if err != nil || len(procs) != 1 {
		t.Fatalf("processes: %v %v", procs, err)
	}
	if p := procs[0]; p.Machine != lab.Internet || !slices.Equal(p.Args[1:], []string{"targets", id}) {
		t.Errorf("process: %+v", p)
	}
	out, err := exec.Command(os.Args[0], "exec", id, "client1", "cat", "/etc/resolv.conf").CombinedOutput()
	if err != nil || !strings.Contains(string(out), lab.ResolverV4.String()) {
		t.Errorf("resolv.conf of client1: %s %v", out, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the targets' process ended", func() bool { return !alive(procs[0].PID) })
}

func TestCloseAfterTheMakerWasKilled(t *testing.T) {
	const id = "killed"
	t.Cleanup(func() { remove(t, id); checkGone(t, id) })
	maker := exec.Command(os.Args[0], "create", id)
	stdout, err := maker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(startAndReadLine(t, maker, stdout))
	if err != nil {
		t.Fatal(err)
	}
	if err := maker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = maker.Wait()
	if !alive(pid) {
		t.Fatal("the process in the lab died with its maker")
	}
	l, err := lab.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Errorf("process %d runs on", pid)
	}
}

// Whatever the instant at which the maker is killed, Remove takes all away.
func TestRemoveAfterAKillInTheMiddleOfNew(t *testing.T) {
	const id = "halfway"
	t.Cleanup(func() { remove(t, id); checkGone(t, id) })
	for delay := time.Duration(0); delay < 60*time.Millisecond; delay += 4 * time.Millisecond {
		maker := exec.Command(os.Args[0], "create", id)
		if err := maker.Start(); err != nil {
			t.Fatal(err)
		}
		// A delay to sweep over the instants of New, not to wait for one of them.
		time.Sleep(delay)
		_ = maker.Process.Kill()
		_ = maker.Wait()
		remove(t, id)
		checkGone(t, id)
	}
}
