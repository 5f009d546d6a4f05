package cli

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// dial prepares the connection to the vpnd that host names.
func dial(host string, o rpc.Options, stderr io.Writer) (*rpc.Conn, error) {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "--host %q: %s", host, why).WithHint("write unix:///run/vpnd/control.sock or ssh://root@vps")
	}
	u, err := url.Parse(host)
	if err != nil {
		return nil, bad("is not an address")
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return nil, bad("needs an absolute path")
		}
		// Not to be there is an answer: nobody waits for a vpnd that does not run.
		if _, err := os.Stat(u.Path); err != nil {
			return nil, fault.Wrap(err, fault.Unavailable, "vpnd is not reachable")
		}
		return rpc.DialUnix("vpnd", u.Path, o), nil
	case "ssh":
		argv, why := sshCommand(u)
		if why != "" {
			return nil, bad(why)
		}
		o.Dial = func(context.Context) (net.Conn, error) { return startSSH(argv, stderr) }
		return rpc.DialUnix("vpnd", "", o), nil
	}
	return nil, bad("has no scheme that is known")
}

// socketPath is what may reach the shell on the other side of ssh.
var socketPath = regexp.MustCompile(`^/[A-Za-z0-9_./-]+$`)

// sshCommand gives the command that connects our standard streams to the
// control socket over there, or what is wrong with the address.
func sshCommand(u *url.URL) (argv []string, why string) {
	host, user := u.Hostname(), u.User.Username()
	if host == "" || strings.HasPrefix(host, "-") || strings.HasPrefix(user, "-") {
		return nil, "needs a host"
	}
	if _, has := u.User.Password(); has {
		return nil, "may not hold a password"
	}
	argv = []string{"ssh", "-T"}
	if p := u.Port(); p != "" {
		argv = append(argv, "-p", p)
	}
	if user != "" {
		argv = append(argv, "-l", user)
	}
	argv = append(argv, "--", host, "vpnctl")
	if u.Path != "" && u.Path != "/" {
		if !socketPath.MatchString(u.Path) {
			return nil, "names a socket with unusual characters"
		}
		argv = append(argv, "--host", "unix://"+u.Path)
	}
	return append(argv, "proxy"), ""
}

// startSSH runs the system's ssh, which knows the user's keys, agent and
// configuration, and speaks through it.
func startSSH(argv []string, stderr io.Writer) (net.Conn, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "ssh cannot be started").WithHint("install the OpenSSH client")
	}
	return &processConn{cmd: cmd, in: in, out: out}, nil
}

// processConn is a process's standard streams as a connection.
type processConn struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser
}

func (c *processConn) Read(p []byte) (int, error)  { return c.out.Read(p) }
func (c *processConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// Close ends the process: its input is closed, and it gets a moment.
func (c *processConn) Close() error {
	_ = c.in.Close()
	kill := time.AfterFunc(2*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	_ = c.out.Close()
	return c.cmd.Wait()
}

func (c *processConn) LocalAddr() net.Addr              { return processAddr{} }
func (c *processConn) RemoteAddr() net.Addr             { return processAddr{} }
func (c *processConn) SetDeadline(time.Time) error      { return nil }
func (c *processConn) SetReadDeadline(time.Time) error  { return nil }
func (c *processConn) SetWriteDeadline(time.Time) error { return nil }

type processAddr struct{}

func (processAddr) Network() string { return "ssh" }
func (processAddr) String() string  { return "ssh" }
