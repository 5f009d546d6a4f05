//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/netns"
)

// TestMain lets the test binary be the programs that the tests run: the name of
// one as the first argument makes it that program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if run, ok := programs[os.Args[1]]; ok {
			if err := run(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

var programs = map[string]func(args []string) error{
	// wait runs until it is killed.
	"wait": func([]string) error {
		fmt.Println("ready")
		select {}
	},
	// parent starts a child that outlives it, and says the child's pid.
	"parent": func([]string) error {
		child, err := os.StartProcess(os.Args[0], []string{os.Args[0], "wait"}, &os.ProcAttr{Sys: &unix.SysProcAttr{Setsid: true}})
		if err != nil {
			return err
		}
		fmt.Println(child.Pid)
		return nil
	},
	// replace FILE TEXT replaces a file the way resolvconf and editors do.
	"replace": func(args []string) error {
		if err := os.WriteFile(args[0]+".new", []byte(args[1]), 0o644); err != nil {
			return err
		}
		return os.Rename(args[0]+".new", args[0])
	},
	"cat": func(args []string) error {
		b, err := os.ReadFile(args[0])
		if err == nil {
			_, err = os.Stdout.Write(b)
		}
		return err
	},
	// targets is what Options.TargetCommand wants.
	"targets": func([]string) error {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		return lab.ServeTargets(ctx, nil)
	},
	"broken-targets": func([]string) error { return errors.New("no targets today") },
	// create ID builds a lab with a process in it and then hangs.
	"create": func(args []string) error {
		l, err := lab.New(context.Background(), lab.Options{ID: args[0], Clients: 1})
		if err != nil {
			return err
		}
		cmd := l.Machine(lab.Server).Command(os.Args[0], "wait")
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println(cmd.Process.Pid)
		select {}
	},
	// up ID builds a lab and leaves it there.
	"up": func(args []string) error {
		_, err := lab.New(context.Background(), lab.Options{
			ID: args[0], Clients: 1, TargetCommand: []string{os.Args[0], "targets"},
		})
		return err
	},
	"exec": func(args []string) error {
		l, err := lab.Open(args[0])
		if err != nil {
			return err
		}
		return l.Machine(args[1]).Exec(os.Args[0], args[2:]...)
	},
}

// newLab builds a lab that is removed at the end of the test, and checks then
// that nothing of it is left.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	before := hostLinks(t)
	l, err := lab.New(t.Context(), o)
	if err != nil {
		t.Fatalf("new lab: %v", err)
	}
	t.Cleanup(func() {
		remove(t, l.ID())
		if err := l.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		checkGone(t, l.ID())
		if after := hostLinks(t); !slices.Equal(before, after) {
			t.Errorf("links of the host: %v before, %v after", before, after)
		}
	})
	return l
}

func remove(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := lab.Remove(ctx, id); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// checkGone looks for anything of a lab in this and the host's files.
func checkGone(t *testing.T, id string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(lab.Root, id)); !os.IsNotExist(err) {
		t.Errorf("state of lab %s is left: %v", id, err)
	}
	names, err := filepath.Glob(filepath.Join(netns.Dir, "vpnd-"+id+"-*"))
	if err != nil || len(names) > 0 {
		t.Errorf("namespaces are left: %v %v", names, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, id) {
			t.Errorf("a mount is left: %s", line)
		}
	}
}

func hostLinks(t *testing.T) []string {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		names = append(names, fmt.Sprintf("%d %s", l.Index, l.Name))
	}
	return names
}

// alive tells whether a process runs; one that only waits to be collected does not.
func alive(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	return err == nil
}

// eventually waits for a condition that some other process brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// startAndReadLine starts a program and waits for its first line of output.
func startAndReadLine(t *testing.T, cmd interface{ Start() error }, stdout io.Reader) string {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("read the program's first line: %v", err)
	}
	return strings.TrimSpace(line)
}
