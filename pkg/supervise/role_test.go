package supervise_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/supervise"
)

// The test binary is also the program that the tests supervise: with roleEnv
// set it plays that part instead of running tests.
const roleEnv = "ROLE"

// program is a copy of the test binary that every user may execute.
var program string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests start processes as other users: run them as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "supervise")
	if err == nil {
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "program")
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = copyFile("/proc/self/exe", program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

func play(role string) {
	switch role {
	case "good", "stubborn", "slow", "parent", "chatty", "unready":
		if role == "stubborn" {
			signal.Ignore(syscall.SIGTERM)
		} else {
			go exitOnTerm()
		}
		switch role {
		case "slow":
			time.Sleep(300 * time.Millisecond)
		case "parent":
			detach()
		case "chatty":
			chatter()
		}
		serve(inherited(3))
	case "foreign":
		go exitOnTerm()
		path := os.Getenv("SOCKET")
		os.Remove(path)
		l, err := net.Listen("unix", path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		serve(l)
	case "silent", "detached":
		select {}
	case "die":
		for i := range 30 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
		fmt.Fprintln(os.Stderr, "cannot go on: no such thing")
		os.Exit(3)
	case "supervisor":
		superviseParent()
	}
}

// exitOnTerm notes the moment, so that a test sees the order.
func exitOnTerm() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGTERM)
	<-ch
	if file := os.Getenv("STOPLOG"); file != "" {
		if f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666); err == nil {
			fmt.Fprintln(f, os.Getenv("NAME"))
			f.Close()
		}
	}
	syscall.Exit(0) // os.Exit takes a second under the race detector
}

func inherited(fd int) net.Listener {
	f := os.NewFile(uintptr(fd), "inherited")
	l, err := net.FileListener(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, "inherited listener:", err)
		os.Exit(1)
	}
	f.Close()
	return l
}

// self is what a child tells about itself.
type self struct {
	PID        int
	Env        []string
	FDs        map[string]string
	Status     map[string]string
	Assignment string
	AssignErr  string // of an attempt to change it
	Cwd        string
	PGID       int
}

// lookAtSelf runs before anything else in the child, while only inherited
// descriptors and the runtime's own are open.
func lookAtSelf() self {
	s := self{PID: os.Getpid(), Env: os.Environ(), FDs: map[string]string{}, Status: map[string]string{}, PGID: syscall.Getpgrp()}
	s.Cwd, _ = os.Getwd()
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The directory being read has gone by now.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			s.FDs[e.Name()] = target
		}
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		s.Status[key] = strings.Join(strings.Fields(value), " ")
	}
	if n, err := strconv.Atoi(os.Getenv(supervise.AssignmentEnv)); err == nil {
		f := os.NewFile(uintptr(n), "assignment")
		data, _ := io.ReadAll(f)
		s.Assignment = string(data)
		if _, err := f.WriteAt([]byte("x"), 0); err != nil {
			s.AssignErr = err.Error()
		}
	}
	return s
}

func serve(l net.Listener) {
	me := lookAtSelf()
	var unreadyUntil time.Time
	if os.Getenv(roleEnv) == "unready" {
		unreadyUntil = time.Now().Add(200 * time.Millisecond)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if strings.Contains(line, "self") {
					_ = json.NewEncoder(conn).Encode(me)
				} else if time.Now().Before(unreadyUntil) {
					fmt.Fprintln(conn, `{"status":"pong","ready":false,"reason":"still reading"}`)
				} else {
					fmt.Fprintln(conn, `{"status":"pong"}`)
				}
			}
		}()
	}
}

func detach() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleEnv + "=detached"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.WriteFile(os.Getenv("PIDFILE"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func chatter() {
	fmt.Fprintln(os.Stderr, strings.Repeat("x", 1<<20))
	for i := range 20000 {
		fmt.Fprintf(os.Stderr, "stderr line %d %s\n", i, strings.Repeat("y", 80))
		fmt.Fprintf(os.Stdout, "stdout line %d\n", i)
	}
}

// superviseParent is a whole supervisor, for the tests that kill one.
func superviseParent() {
	dir := os.Getenv("DIR")
	s, err := supervise.New(supervise.Config{RunDir: dir, Services: map[string]supervise.Spec{
		"parent": {
			Cmd: []string{os.Getenv("PROGRAM")}, SocketPath: dir + "/parent.sock", Inherit: true,
			Env: map[string]string{roleEnv: "parent", "PIDFILE": dir + "/detached.pid"},
		},
		"plain": {Cmd: []string{os.Getenv("PROGRAM")}, User: "12345", Env: map[string]string{roleEnv: "silent"}, Capabilities: []string{"net_admin"}},
	}}, supervise.Deps{})
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		go func() {
			for {
				if plain, _ := s.Get("plain"); plain.PID != 0 {
					_ = os.WriteFile(dir+"/plain.pid", []byte(strconv.Itoa(plain.PID)), 0o600)
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		err = s.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
