package supervise_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/supervise"
)

// processesWith counts processes of the program with this entry in their
// environment. The program's path is of this run of the tests alone.
func processesWith(t *testing.T, entry string) int {
	t.Helper()
	procs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range procs {
		exe, err := os.Readlink("/proc/" + p.Name() + "/exe")
		if err != nil || exe != program {
			continue
		}
		env, err := os.ReadFile("/proc/" + p.Name() + "/environ")
		if err == nil && strings.Contains("\x00"+string(env), "\x00"+entry+"\x00") {
			n++
		}
	}
	return n
}

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	dir := tempDir(t)
	no := false
	services := map[string]supervise.Spec{}
	for _, name := range []string{"same", "changed", "removed", "disabled", "halted"} {
		services[name] = service(dir, name, "good")
	}
	off := service(dir, "off", "good")
	off.Enabled = &no
	services["off"] = off
	w := run(t, dir, services)
	pids := map[string]int{}
	for _, name := range []string{"same", "changed", "removed", "disabled", "halted"} {
		pids[name] = w.untilState(name, supervise.Ready).PID
	}
	if err := w.Stop(w.ctx(), "halted"); err != nil {
		t.Fatal(err)
	}
	if st := w.get("off"); st.State != supervise.Disabled || st.Enabled {
		t.Errorf("off: %+v", st)
	}
	if err := w.Start(w.ctx(), "off"); !errors.Is(err, fault.Conflict) {
		t.Errorf("Start of a disabled service: %v", err)
	}

	next := map[string]supervise.Spec{}
	for name, s := range services {
		s.Env = map[string]string{roleEnv: "good", "NAME": name}
		next[name] = s
	}
	delete(next, "removed")
	next["changed"].Env["EXTRA"] = "1"
	next["halted"].Env["EXTRA"] = "1"
	disabled, on := next["disabled"], next["off"]
	disabled.Enabled, on.Enabled = &no, nil
	next["disabled"], next["off"] = disabled, on
	next["added"] = service(dir, "added", "good")
	socketBefore := inode(t, services["changed"].SocketPath)
	got, err := w.Apply(w.ctx(), next)
	if err != nil {
		t.Fatal(err)
	}
	want := supervise.Changes{
		Started: []string{"added", "off"}, Restarted: []string{"changed"}, Stopped: []string{"disabled"},
		Removed: []string{"removed"}, Updated: []string{"halted"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if pid := w.get("same").PID; pid != pids["same"] {
		t.Errorf("an unchanged service was restarted: %d, was %d", pid, pids["same"])
	}
	if st := w.get("changed"); st.PID == pids["changed"] || st.State != supervise.Ready {
		t.Errorf("changed: %+v", st)
	}
	if inode(t, services["changed"].SocketPath) != socketBefore {
		t.Error("the socket of a changed service was made anew")
	}
	if !gone(pids["removed"]) || !gone(pids["disabled"]) || !gone(pids["changed"]) {
		t.Error("a process that had to go is still there")
	}
	for _, name := range []string{"removed", "disabled"} {
		if _, err := os.Lstat(services[name].SocketPath); !os.IsNotExist(err) {
			t.Errorf("socket of %s: %v", name, err)
		}
	}
	var states []string
	for _, st := range w.Status() {
		states = append(states, st.Name+"="+string(st.State))
	}
	if diff := cmp.Diff([]string{"added=ready", "changed=ready", "disabled=disabled", "halted=stopped", "off=ready", "same=ready"}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if again, err := w.Apply(w.ctx(), next); err != nil || !again.Empty() {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	bad := map[string]supervise.Spec{"same": {}}
	if _, err := w.Apply(w.ctx(), bad); !errors.Is(err, fault.Invalid) || w.get("same").PID != pids["same"] {
		t.Errorf("an invalid set: %v", err)
	}
	dying := map[string]supervise.Spec{"same": next["same"], "dies": service(dir, "dies", "die")}
	if c, err := w.Apply(w.ctx(), dying); !errors.Is(err, fault.Unavailable) || !slices.Equal(c.Started, []string{"dies"}) {
		t.Errorf("a set with a service that dies: %+v, %v", c, err)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestDependentsStopFirst(t *testing.T) {
	dir := tempDir(t)
	log := dir + "/stops"
	services := map[string]supervise.Spec{}
	for name, after := range map[string][]string{"gateway": {"auth", "sessions"}, "auth": {"keys"}, "sessions": {"lanes"}, "keys": nil, "lanes": nil} {
		s := service(dir, name, "good")
		s.After, s.Env["STOPLOG"] = after, log
		services[name] = s
	}
	w := run(t, dir, services)
	for name := range services {
		w.untilState(name, supervise.Ready)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	order := strings.Fields(string(data))
	if len(order) != len(services) {
		t.Fatalf("order %v", order)
	}
	for name, s := range services {
		for _, need := range s.After {
			if slices.Index(order, name) > slices.Index(order, need) {
				t.Errorf("%s stopped after %s, which it needs: %v", name, need, order)
			}
		}
	}
}

func TestKilledSupervisorTakesItsChildrenAndLeavesTheDetached(t *testing.T) {
	dir := tempDir(t)
	command := func() *exec.Cmd {
		cmd := exec.Command(program)
		cmd.Env = []string{roleEnv + "=supervisor", "DIR=" + dir, "PROGRAM=" + program}
		return cmd
	}
	start := func() *exec.Cmd {
		cmd := command()
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return cmd
	}
	readPID := func(file string) (pid int) {
		eventually(t, file, func() bool {
			data, _ := os.ReadFile(dir + "/" + file)
			pid, _ = strconv.Atoi(string(data))
			return pid != 0
		})
		return pid
	}
	first := start()
	plain, detached := readPID("plain.pid"), readPID("detached.pid")
	t.Cleanup(func() { _ = syscall.Kill(detached, syscall.SIGKILL) })
	eventually(t, "the socket is there", func() bool { _, err := os.Lstat(dir + "/parent.sock"); return err == nil })
	parent := askSelf(t, dir+"/parent.sock").PID

	// A second one on the same directory is refused.
	if out, err := command().CombinedOutput(); err == nil ||
		!strings.Contains(string(out), fmt.Sprintf("another supervisor (pid %d) runs on %s", first.Process.Pid, dir)) {
		t.Errorf("second supervisor: %v %s", err, out)
	}

	kill(t, first.Process.Pid, syscall.SIGKILL)
	_ = first.Wait()
	eventually(t, "the children are gone", func() bool { return gone(plain) && gone(parent) })
	if gone(detached) {
		t.Error("a detached process died with the supervisor")
	}

	// The stale socket file is replaced by the next supervisor.
	if err := os.Remove(dir + "/plain.pid"); err != nil {
		t.Fatal(err)
	}
	oldDetached := detached
	second := start()
	readPID("plain.pid")
	eventually(t, "the new parent has detached its own", func() bool { return readPID("detached.pid") != oldDetached })
	newDetached := readPID("detached.pid")
	t.Cleanup(func() { _ = syscall.Kill(newDetached, syscall.SIGKILL) })
	if me := askSelf(t, dir+"/parent.sock"); me.PID == parent {
		t.Error("the old process still answers")
	}
	kill(t, second.Process.Pid, syscall.SIGTERM)
	if err := second.Wait(); err != nil {
		t.Errorf("clean stop: %v", err)
	}
	if gone(newDetached) || gone(oldDetached) {
		t.Error("a detached process died with a clean stop")
	}
}

func TestSlowSubscriberLosesTheOldestAndIsTold(t *testing.T) {
	dir := tempDir(t)
	w := run(t, dir, map[string]supervise.Spec{"a": {Cmd: []string{"sleep", "1000"}}})
	w.untilState("a", supervise.Running)
	events, cancel := w.Subscribe()
	for range 30 { // four events each: stopping, stopped, starting or running
		if err := w.Stop(w.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := w.Start(w.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	kept, lost := 0, 0
	var last supervise.Event
	for e := range events {
		kept, lost, last = kept+1, lost+e.Dropped, e
	}
	if kept != 64 || lost == 0 || last.State != supervise.Running || last.Service != "a" || last.PID == 0 {
		t.Errorf("kept %d, lost %d, last %+v", kept, lost, last)
	}
	if kept+lost != 90 {
		t.Errorf("kept %d and lost %d of 90", kept, lost)
	}
	ended, _ := w.Subscribe()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	for range ended {
	}
}

func TestBeforeAndAfterRunRequestsAreRefused(t *testing.T) {
	dir := tempDir(t)
	s, err := supervise.New(supervise.Config{RunDir: dir, Services: map[string]supervise.Spec{"a": {Cmd: []string{"true"}}}}, supervise.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context(), "a"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("before Run: %v", err)
	}
	w := run(t, dir, map[string]supervise.Spec{"a": service(dir, "a", "good")})
	w.untilState("a", supervise.Ready)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.Restart(t.Context(), "a"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("after Run: %v", err)
	}
	if _, err := w.Apply(t.Context(), nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("Apply after Run: %v", err)
	}
	if st := w.get("a"); st.State != supervise.Stopped {
		t.Errorf("after Run: %+v", st)
	}
}
