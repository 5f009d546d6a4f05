//go:build linux

// Package site puts vpnd into a lab: its configuration on the server, its
// process, and its programs on every machine. The demo, the end-to-end tests
// and `vpnctl lab up` use it. It knows the programs by their names and flags
// only. A Site may be used from many goroutines; starting and ending vpnd is
// for one at a time.
package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
	"vpnd/pkg/lab/tornet"
)

// Paths of vpnd inside the server machine.
const (
	ConfigPath = "/etc/vpnd/vpnd.toml"
	LogPath    = "/var/log/vpnd.log" // what vpnd prints
	lockPath   = "/var/lib/vpnd/vpnd.lock"
)

// Site is a lab with the programs of vpnd.
type Site struct{ *lab.Lab }

// programs is where a machine has its own copies of the programs: the folder
// they were built in may be closed to the accounts that services run as.
const programs = "/run/programs"

// New takes a lab and the folder that holds vpnd, vpnctl and vpn, and puts
// each on the machines that use it.
func New(l *lab.Lab, bin string) (*Site, error) {
	for _, name := range []string{"vpnd", "vpnctl", "vpn"} {
		data, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return nil, fmt.Errorf("program %s: %w (run 'make build')", name, err)
		}
		for _, machine := range l.Names() {
			if machine == lab.Internet || (machine == lab.Server) == (name == "vpn") {
				continue
			}
			if err := l.Machine(machine).Do(func() error { return install(name, data) }); err != nil {
				return nil, fmt.Errorf("put %s on %s: %w", name, machine, err)
			}
		}
	}
	return &Site{l}, nil
}

func install(name string, data []byte) error {
	if err := os.MkdirAll(programs, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(programs, name), data, 0o755)
}

// Config is the configuration of the lab's server: accounts that need nothing
// on the host, and the lab's own resolver.
func (s *Site) Config() string {
	return fmt.Sprintf(`# vpnd in a lab: numeric accounts, the lab's own resolver.
[server]
endpoint = "%s"

[users]
mode = "dynamic"

[lanes.vpn]
dns = ["%s", "%s"]
`, s.server().IPv4(), lab.ResolverV4, lab.ResolverV6)
}

// TorConfig is the part of the configuration that makes lane tor use a network
// of the lab's own, to be added to Config.
func TorConfig(n *tornet.Network) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n[tor]\ncheck_url = \"http://%s/ip\"\nextra_torrc = [\n", lab.TargetV4)
	for _, line := range n.TorrcLines() {
		fmt.Fprintf(&b, "  %q,\n", line)
	}
	b.WriteString("]\n")
	return b.String()
}

func (s *Site) server() *lab.Machine { return s.Machine(lab.Server) }

// WriteConfig puts a configuration on the server.
func (s *Site) WriteConfig(text string) error {
	return s.server().Do(func() error {
		if err := os.MkdirAll(filepath.Dir(ConfigPath), 0o755); err != nil {
			return err
		}
		return os.WriteFile(ConfigPath, []byte(text), 0o644)
	})
}

// Start starts vpnd on the server as a process of its own that outlives the
// caller, and returns when the process runs. WaitReady tells when it is ready.
func (s *Site) Start() (*Daemon, error) {
	var out *os.File
	err := s.server().Do(func() (err error) {
		out, err = os.OpenFile(LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := s.Command(lab.Server, "vpnd", "run", "--config", ConfigPath)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start vpnd: %w", err)
	}
	d := &Daemon{cmd: cmd, ended: make(chan struct{})}
	go func() {
		d.err = cmd.Wait()
		close(d.ended)
	}()
	return d, nil
}

// Daemon is a vpnd that this process started.
type Daemon struct {
	cmd   *lab.Cmd
	ended chan struct{}
	err   error
}

// PID is the supervisor's process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Ended is closed when the supervisor has ended.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// Kill ends the supervisor the hard way and returns when it is gone.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill() // it may be gone already
	<-d.ended
}

// Stop ends vpnd the polite way.
func (d *Daemon) Stop(ctx context.Context) error {
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.ended:
		return d.err
	case <-ctx.Done():
		return fmt.Errorf("vpnd does not end: %w", ctx.Err())
	}
}

// RunningPID gives the process id of a vpnd that somebody started on the
// server, or 0.
func (s *Site) RunningPID() int {
	data, err := s.server().ReadFile(lockPath)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	if pid == 0 || unix.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// WaitReady returns when every service is ready; on failure it tells what vpnd
// printed last.
func (s *Site) WaitReady(ctx context.Context) error {
	for {
		err := s.Vpnctl(ctx, "wait", "vpnd=ready", "--timeout", "2s").Run()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := s.server().ReadFile(LogPath) // the best there is
			return fmt.Errorf("vpnd is not ready: %w\n%s", err, tail(log, 30))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func tail(b []byte, lines int) []byte {
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return bytes.Join(all, []byte("\n"))
}

// Command prepares one of vpnd's programs on a machine.
func (s *Site) Command(machine, program string, args ...string) *lab.Cmd {
	return s.CommandContext(context.Background(), machine, program, args...)
}

// CommandContext is Command for a program that is killed when ctx ends.
func (s *Site) CommandContext(ctx context.Context, machine, program string, args ...string) *lab.Cmd {
	cmd := s.Machine(machine).CommandContext(ctx, filepath.Join(programs, program), args...)
	cmd.Env = append(cmd.Env, "PATH="+programs+":"+os.Getenv("PATH"))
	cmd.Dir = "/" // the caller's folder may be closed too
	return cmd
}

// Vpnctl prepares vpnctl on the server.
func (s *Site) Vpnctl(ctx context.Context, args ...string) *lab.Cmd {
	return s.CommandContext(ctx, lab.Server, "vpnctl", args...)
}

// Vpn prepares the client program on a machine.
func (s *Site) Vpn(ctx context.Context, machine string, args ...string) *lab.Cmd {
	return s.CommandContext(ctx, machine, "vpn", args...)
}

// ExitStatus is what a program ended with: 0 for nil, -1 when it did not run.
func ExitStatus(err error) int {
	if err == nil {
		return 0
	}
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		return ee.ExitCode()
	}
	return -1
}
