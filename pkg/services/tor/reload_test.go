package tor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
)

// configured gives what tor was told from the nth command on, as far as it is about its configuration.
func (w *world) configured(n int) []string {
	var out []string
	for _, c := range w.commands()[n:] {
		if strings.HasPrefix(c, "SETCONF") || strings.HasPrefix(c, "SIGNAL") {
			out = append(out, c)
		}
	}
	return out
}

// runs is the mark of the configuration that tor runs.
func (w *world) runs() string {
	c, err := w.s.tor()
	if err != nil {
		return ""
	}
	v, _ := c.GetConf(w.t.Context(), "Nickname")
	return strings.Join(v, "")
}

// loaded waits until tor runs what is in the torrc with the text.
func (w *world) loaded(text string) {
	w.t.Helper()
	w.until("a torrc with "+text, func(*api.Status) bool {
		b, _ := os.ReadFile(w.s.paths.torrc())
		return strings.Contains(string(b), text) && w.runs() == markOf(string(b))
	})
}

const reopen = `SETCONF TransPort="0" DNSPort="0"`

func TestANewIsolationOpensTheListenersAnew(t *testing.T) {
	t.Parallel()
	w := begun(t)
	pid := w.up().PID
	n := len(w.commands()) - 1
	if _, err := w.s.setIsolation("none"); !errors.Is(err, fault.Invalid) {
		t.Errorf("isolation none: %v", err)
	}
	if st, err := w.s.setIsolation(byDestination); err != nil || st.Isolation != byDestination {
		t.Fatal(st, err)
	}
	w.loaded("IsolateDestAddr")
	if got, want := w.configured(n), []string{reopen, "SIGNAL RELOAD"}; !slices.Equal(got, want) {
		t.Errorf("tor was told %q, want %q", got, want)
	}
	// What tor took is noted before the service ends: one that is killed sooner
	// only says it again.
	w.until("the pid file knows", func(*api.Status) bool {
		data, _ := os.ReadFile(w.s.paths.pid())
		return strings.Contains(string(data), byDestination)
	})
	w.restart()
	if st := w.up(); st.Isolation != byDestination || st.PID != pid {
		t.Errorf("after a restart %+v", st)
	}
	if got := w.configured(n); len(got) != 2 {
		t.Errorf("after a restart tor was told %q", got)
	}
}

func TestARefusedConfigurationIsToldAndMended(t *testing.T) {
	t.Parallel()
	w := begun(t)
	pid, before := w.up().PID, w.runs()
	if _, err := w.s.bridges.Add("192.0.2.1:443"); err != nil {
		t.Fatal(err)
	}
	o := well()
	o.Refuse = "Bridge 192.0.2.1"
	w.order(o)
	for range 2 { // the second is refused in a service that came later
		if err := w.s.bridges.Use(true); err != nil {
			t.Fatal(err)
		}
		wake(w.s.kick)
		w.maintenance("tor does not take its configuration: Failed to parse/validate config: no way to do Bridge")
		if got := w.runs(); got != before {
			t.Errorf("tor runs %s, want the former %s", got, before)
		}
		w.restart()
	}
	w.maintenance("tor does not take its configuration")
	// Back to what tor runs: there is nothing to refuse any more.
	if err := w.s.bridges.Use(false); err != nil {
		t.Fatal(err)
	}
	wake(w.s.kick)
	w.up()
	w.order(well())
	if err := w.s.bridges.Use(true); err != nil {
		t.Fatal(err)
	}
	wake(w.s.kick)
	w.loaded("Bridge 192.0.2.1:443")
	if st := w.up(); st.PID != pid || !st.Bridges {
		t.Errorf("in the end %+v", st)
	}
}

func TestListenersAreOpenedAgainAfterARefusal(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.up()
	n := len(w.commands()) - 1
	o := well()
	o.Refuse = "IsolateDestAddr"
	w.order(o)
	if _, err := w.s.setIsolation(byDestination); err != nil {
		t.Fatal(err)
	}
	w.maintenance("no way to do IsolateDestAddr")
	if _, err := w.s.setIsolation(byDevice); err != nil {
		t.Fatal(err)
	}
	w.up()
	if got, want := w.configured(n), []string{reopen, "SIGNAL RELOAD", "SIGNAL RELOAD"}; !slices.Equal(got, want) {
		t.Errorf("tor was told %q, want %q: its listeners stay closed", got, want)
	}
}

func TestAFullDiskRefusesAWish(t *testing.T) {
	w := still(t)
	dir := filepath.Join(w.dir, "state")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("no tmpfs: %v", err) // not root
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	w.wish(api.WishMaintenance, "before")
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	_, err := w.s.setWish(t.Context(), func(x *wish) { x.Wish = api.WishUp })
	if fault.ReasonOf(err) != "disk_full" {
		t.Errorf("a wish: %v", err)
	}
	if _, err := w.s.setIsolation(byDestination); fault.ReasonOf(err) != "disk_full" {
		t.Errorf("isolation: %v", err)
	}
	r := &api.ExitRequest{User: "alice"}
	r.Body.Exits = []string{"de"}
	if _, err := w.s.setExit(t.Context(), r); fault.ReasonOf(err) != "disk_full" {
		t.Errorf("an exit: %v", err)
	}
	if st := w.s.Status(); st.Wish != api.WishMaintenance || st.Lane != string(lanes.TorMaintenance) || st.Isolation != byDevice || len(w.s.listExits()) != 0 {
		t.Errorf("something was changed: %+v", st)
	}
	w.make()
	if w.s.wish.Wish != api.WishMaintenance || w.s.wish.Message != "before" {
		t.Errorf("on disk is %+v", w.s.wish)
	}
}
