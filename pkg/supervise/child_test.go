package supervise_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/supervise"
)

func TestChildHasJustWhatItsSpecGives(t *testing.T) {
	dir := tempDir(t)
	// Something of the supervisor's own that must not reach a child: an
	// open file that is not close-on-exec, and a variable.
	t.Setenv("SUPERVISOR_SECRET", "hidden")
	leak, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()

	lanes := service(dir, "lanes", "good")
	lanes.User, lanes.Groups, lanes.Capabilities = "12345:12346", []string{"777", "778"}, []string{"net_admin", "CAP_NET_RAW"}
	lanes.Listen = []string{"tcp://127.0.0.1:0", "tcp://[::1]:0"}
	lanes.Env["COLOUR"] = "blue"
	none := service(dir, "none", "good")
	none.User = "12347"
	rootless := service(dir, "rootless", "good")

	w := run(t, dir, map[string]supervise.Spec{"lanes": lanes, "none": none, "rootless": rootless},
		func(_ *supervise.Config, d *supervise.Deps) {
			d.Assign = func(name string) ([]byte, error) {
				if name == "rootless" {
					return nil, nil
				}
				return []byte("facts for " + name), nil
			}
		})
	const netAdminRaw = "0000000000003000"
	const nothing = "0000000000000000"
	for _, tt := range []struct {
		name, uid, gid, groups, caps string
		env                          []string
		fds                          int
		assignment                   string
	}{
		{"lanes", "12345", "12346", "777 778", netAdminRaw, []string{
			"COLOUR=blue", "LANG=C.UTF-8", "LISTEN_FDNAMES=unix:tcp0:tcp1", "LISTEN_FDS=3", "NAME=lanes",
			"PATH=" + supervise.SearchPath, "ROLE=good", "VPND_ASSIGNMENT_FD=6"}, 7, "facts for lanes"},
		{"none", "12347", "12347", "", nothing, []string{
			"LANG=C.UTF-8", "LISTEN_FDNAMES=unix", "LISTEN_FDS=1", "NAME=none",
			"PATH=" + supervise.SearchPath, "ROLE=good", "VPND_ASSIGNMENT_FD=4"}, 5, "facts for none"},
		{"rootless", "0", "0", "", nothing, []string{
			"LANG=C.UTF-8", "LISTEN_FDNAMES=unix", "LISTEN_FDS=1", "NAME=rootless",
			"PATH=" + supervise.SearchPath, "ROLE=good"}, 4, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := w.untilState(tt.name, supervise.Ready)
			me := askSelf(t, dir+"/"+tt.name+".sock")
			if me.PID != st.PID || me.PGID != st.PID {
				t.Errorf("pid %d, process group %d; status says %d", me.PID, me.PGID, st.PID)
			}
			if me.Cwd != "/" {
				t.Errorf("working directory %s", me.Cwd)
			}
			slices.Sort(me.Env)
			if diff := cmp.Diff(tt.env, me.Env); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
			four := func(id string) string { return strings.Join([]string{id, id, id, id}, " ") }
			want := map[string]string{
				"Uid": four(tt.uid), "Gid": four(tt.gid), "Groups": tt.groups,
				"CapInh": tt.caps, "CapPrm": tt.caps, "CapEff": tt.caps, "CapBnd": tt.caps, "CapAmb": tt.caps, "NoNewPrivs": "1",
			}
			for key, value := range want {
				if me.Status[key] != value {
					t.Errorf("%s is %q, want %q", key, me.Status[key], value)
				}
			}
			if me.Assignment != tt.assignment || (tt.assignment != "") != (me.AssignErr != "") {
				t.Errorf("assignment %q, writing it: %q", me.Assignment, me.AssignErr)
			}
			for fd, target := range me.FDs {
				var n int
				if _, err := fmt.Sscan(fd, &n); err != nil {
					t.Fatal(err)
				}
				// Beyond those passed, the child's own Go runtime opens epoll,
				// eventfd, its cgroup's limits and the copy of the listener.
				own := strings.Contains(target, "anon_inode") || strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "/sys/fs/cgroup/")
				if n >= tt.fds && !own {
					t.Errorf("descriptor %d leads to %s", n, target)
				}
			}
		})
	}
	t.Run("TCP listeners are open", func(t *testing.T) {
		for _, addr := range w.get("lanes").Listening[1:] {
			conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "tcp://"))
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	})
	t.Run("the supervisor itself keeps its privileges", func(t *testing.T) {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(status), "NoNewPrivs:\t0") {
			t.Error("the main thread is confined")
		}
		confined := 0
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
			if err == nil && strings.Contains(string(status), "NoNewPrivs:\t1") {
				confined++
			}
		}
		if confined != 3 {
			t.Errorf("%d confined threads for 3 services", confined)
		}
	})
}

func TestOpenFilesOfTheSupervisorsParentDoNotReachChildren(t *testing.T) {
	dir := tempDir(t)
	r, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	leaked, err := dupWithoutCloexec(r)
	if err != nil {
		t.Fatal(err)
	}
	defer leaked.Close()
	w := run(t, dir, map[string]supervise.Spec{"a": service(dir, "a", "good")})
	w.untilState("a", supervise.Ready)
	for fd, target := range askSelf(t, dir+"/a.sock").FDs {
		if target == "/etc/passwd" {
			t.Errorf("descriptor %s leads to %s", fd, target)
		}
	}
}

func TestSocketHasItsModeAndOwner(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "good")
	s.SocketMode, s.SocketOwner = "0660", "0:12345"
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	w.untilState("a", supervise.Ready)
	mode, uid, gid := owner(t, s.SocketPath)
	if mode != 0o660 || uid != 0 || gid != 12345 {
		t.Errorf("mode %o, owner %d:%d", mode, uid, gid)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.SocketPath); !os.IsNotExist(err) {
		t.Errorf("after a clean stop the socket is still there: %v", err)
	}
}

func TestCapabilitiesChangeWithTheSpec(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "good")
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	w.untilState("a", supervise.Ready)
	s.Capabilities = []string{"net_bind_service"}
	if _, err := w.Apply(w.ctx(), map[string]supervise.Spec{"a": s}); err != nil {
		t.Fatal(err)
	}
	if got := askSelf(t, s.SocketPath).Status["CapBnd"]; got != "0000000000000400" {
		t.Errorf("CapBnd %s", got)
	}
}
