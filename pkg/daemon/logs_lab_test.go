//go:build linux

package daemon_test

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/config"
	"vpnd/pkg/rpc"
)

// TestTheLinesOfEveryServiceCanBeAskedFor goes the whole way: each service
// writes into a folder of its own, the log service reads them all under its own
// account, and control passes the questions on. Nobody else can read them.
func TestTheLinesOfEveryServiceCanBeAskedFor(t *testing.T) {
	w := newWorld(t)
	w.start()
	conn := rpc.DialUnix("control", "", rpc.Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return w.m.DialContext(ctx, "unix", "/run/vpnd/control.sock")
	}})
	t.Cleanup(conn.CloseIdle)
	services := w.list()
	for _, name := range append(slices.Collect(maps.Keys(services)), "supervisor") {
		var n *logs.Number
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var err error
			if n, err = logs.Count.Call(t.Context(), conn, &logs.Ask{Query: "event=started service=" + name}); err != nil {
				t.Fatal(err)
			}
			if n.Count > 0 || time.Now().After(deadline) {
				break
			}
		}
		if n.Count != 1 {
			t.Errorf("%s has started %d times", name, n.Count)
		}
	}
	st, err := logs.GetStatus.Call(t.Context(), conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, f := range st.Files {
		if f.Skipped != "" {
			t.Errorf("%s is not read: %s", f.Path, f.Skipped)
		}
		read++
	}
	if read != len(services)+1 || st.Problem != "" { // and the supervisor's
		t.Errorf("%d files of %d services, problem %q", read, len(services), st.Problem)
	}

	for reader, want := range map[string]bool{"logs": true, "gateway": false, "control": false} {
		user, _, _ := strings.Cut(services[reader].User, ":")
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		cmd := w.m.Command("cat", "/var/log/vpnd/auth/auth.log")
		cmd.Dir = "/" // these may not enter ours
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{config.Default().Users.Base}}}
		if out, err := cmd.Output(); (err == nil && len(out) > 0) != want {
			t.Errorf("%s reads the log of auth: %v, %v", reader, err == nil, err)
		}
	}
	err = w.m.Do(func() error { _, err := os.ReadDir("/var/lib/vpnd/logs/days"); return err })
	if err != nil {
		t.Errorf("the days: %v", err)
	}
}
