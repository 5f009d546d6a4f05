//go:build linux

package e2e_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
)

// portIsTaken has somebody listen where tor wants to.
func portIsTaken(t *testing.T, w *torWorld) {
	const port = "10.9.0.1:9040"
	w.ctl(0, "", "tor", "stop")
	var l net.Listener
	err := w.Machine(lab.Server).Do(func() (err error) {
		l, err = net.Listen("tcp", port)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := tor.Start.Call(t.Context(), w.control(), nil); err != nil {
		t.Error(err)
	}
	w.tells(port+" is taken", func(s *tor.Status) bool {
		return s.Process == tor.ProcessFailed && s.Lane == "maintenance" && strings.Contains(s.Reason, port) && strings.Contains(s.Hint, "ss -")
	})
}

// diskIsFull fills the disk of the tor service, and keeps it full: files that tor
// replaces give some of it back.
func diskIsFull(t *testing.T, w *torWorld) {
	filler := filepath.Join(torState, "filler")
	var f *os.File
	err := w.Machine(lab.Server).Do(func() (err error) {
		f, err = os.OpenFile(filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	full, enough, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		once := sync.OnceFunc(func() { close(full) })
		for buf := make([]byte, 4096); ; {
			if _, err := f.Write(buf); err == nil {
				continue
			}
			once()
			select {
			case <-enough:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	defer func() {
		close(enough)
		<-ended
		_ = f.Close()
		if err := w.Machine(lab.Server).Do(func() error { return os.Remove(filler) }); err != nil {
			t.Error(err)
		}
	}()
	<-full
	w.seesExit() // what runs does not need the disk

	r := &tor.WishRequest{}
	r.Body.Wish = tor.WishDown
	_, err = tor.SetWish.Call(t.Context(), w.control(), r)
	if err == nil {
		t.Error("a wish can be kept on a full disk")
	} else if said := err.Error() + fault.From(err).Hint; !strings.Contains(said, "space") {
		t.Errorf("a wish on a full disk: %s: %v (hint %q), which tells nobody what to do", fault.CodeOf(err), err, fault.From(err).Hint)
	}
	old := w.torPID()
	w.kill(old)
	s := w.tells("no space, or tor does without", func(s *tor.Status) bool {
		return s.Lane == "maintenance" && strings.Contains(s.Reason, "no space left") || s.Lane == "up" && s.PID != 0 && s.PID != old
	})
	if s.Lane != "up" && s.Hint == "" {
		t.Errorf("a full disk has no hint: %q", s.Reason)
	}
}

// lateClock makes the time of day three days earlier for a program that loads it.
// (faketime also changes how threads wait, which tor does not survive.)
const lateClock = `
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
	long r = syscall(SYS_clock_gettime, id, t);
	if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec -= 3 * 86400;
	return r;
}
int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	tv->tv_sec = t.tv_sec;
	tv->tv_usec = t.tv_nsec / 1000;
	return 0;
}
time_t time(time_t *out) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (out) *out = t.tv_sec;
	return t.tv_sec;
}
`

// clockIsWrong starts a tor that believes it is three days ago.
func clockIsWrong(t *testing.T, w *torWorld) {
	source, library := filepath.Join(t.TempDir(), "late.c"), filepath.Join(t.TempDir(), "late.so")
	if err := os.WriteFile(source, []byte(lateClock), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "gcc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	code, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	const program, preloaded = "/run/programs/late-tor", "/run/programs/late.so"
	err = w.Machine(lab.Server).Do(func() error {
		script := "#!/bin/sh\nexport LD_PRELOAD=" + preloaded + "\nexec tor \"$@\"\n"
		return errors.Join(os.WriteFile(preloaded, code, 0o755), os.WriteFile(program, []byte(script), 0o755))
	})
	if err != nil {
		t.Fatal(err)
	}
	change := func(config string) {
		w.ctl(0, "", "tor", "stop")
		if err := w.WriteConfig(config); err != nil {
			t.Fatal(err)
		}
		w.daemon.Kill()
		w.start()
		if _, err := tor.Start.Call(t.Context(), w.control(), nil); err != nil {
			t.Error(err)
		}
	}
	defer change(w.config)
	change(strings.Replace(w.config, "[tor]\n", "[tor]\nbinary = \""+program+"\"\n", 1))
	s := w.tells("the clock is wrong", func(s *tor.Status) bool {
		return s.Lane == "maintenance" && strings.Contains(strings.ToLower(s.Reason), "clock")
	})
	if s.Hint == "" {
		t.Errorf("a wrong clock has no hint: %q", s.Reason)
	}
}
