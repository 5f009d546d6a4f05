//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"vpnd/pkg/lab/netns"
)

// Cmd is an exec.Cmd that starts in a machine. A SysProcAttr.Pdeathsig must not
// be set: the thread that starts the process does not live on.
type Cmd struct {
	*exec.Cmd
	machine *Machine
}

// Command prepares a program that runs in the machine. It inherits the
// environment, except for what leads to the user's home and session.
func (m *Machine) Command(name string, args ...string) *Cmd {
	return m.CommandContext(context.Background(), name, args...)
}

// CommandContext is Command for a program that is killed when ctx ends.
func (m *Machine) CommandContext(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = Environ()
	return &Cmd{Cmd: c, machine: m}
}

// Environ is the environment of this process as it makes sense in a machine.
func Environ() []string {
	env := make([]string, 0, 32)
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "HOME", name == "NOTIFY_SOCKET", strings.HasPrefix(name, "XDG_"),
			strings.HasPrefix(name, "DBUS_"), strings.HasPrefix(name, "LISTEN_"):
		default:
			env = append(env, kv)
		}
	}
	return append(env, "HOME="+homeDir)
}

// Start is exec.Cmd.Start in the machine. Without a Dir the program starts in
// the working directory of this process.
func (c *Cmd) Start() error {
	if c.Dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return err
		}
		c.Dir = wd
	}
	return c.machine.Do(c.Cmd.Start)
}

// Run is exec.Cmd.Run in the machine.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is exec.Cmd.Output in the machine.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("lab: Stdout already set")
	}
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run()
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		ee.Stderr = stderr.Bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput is exec.Cmd.CombinedOutput in the machine.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("lab: Stdout or Stderr already set")
	}
	var b bytes.Buffer
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return b.Bytes(), err
}

// Exec replaces this process by a program in the machine, with this process's
// terminal, working directory and environment (see Environ). It returns only
// when that is not possible.
func (m *Machine) Exec(name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	return netns.OnThread(func() error {
		if err := m.enter(); err != nil {
			return fmt.Errorf("enter machine %s: %w", m.plan.name, err)
		}
		if err := os.Chdir(wd); err != nil {
			return err
		}
		return syscall.Exec(path, append([]string{name}, args...), Environ())
	})
}
