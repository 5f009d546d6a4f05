//go:build linux

package wgdev_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vpnd/pkg/wgdev"
)

func TestDaemonSurvivesHangupAndBrokenPipe(t *testing.T) {
	server, _, p := pair(t)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		must(t, syscall.Kill(server.pid(), sig))
		p.flows(t, 10)
	}
	if r := p.stop(); r.lost != 0 {
		t.Errorf("%+v", r)
	}
}

func TestDaemonEndsOnTermAndKeepsTheInterface(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	pid := h.pid()
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	eventually(t, "the daemon to end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	s, err := h.links.Get(iface)
	must(t, err)
	if len(s.Addresses) != 1 || !s.Up || s.TxQueueLen != 5000 {
		t.Errorf("got %+v", s)
	}
}

func TestDaemonEndsWithItsInterface(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	pid := h.pid()
	must(t, h.links.Delete(iface))
	eventually(t, "the daemon to end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	must(t, h.reopen())
}

func TestDaemonLogIsBounded(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	log := filepath.Join(h.runDir, iface+".log")
	eventually(t, "the log to be put aside", func() bool {
		for range 20 { // each leaves a line of 10,000 characters
			c, err := net.Dial("unix", filepath.Join(h.runDir, iface+".sock"))
			must(t, err)
			fmt.Fprintf(c, "%s\n", strings.Repeat("x", 10_000))
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
		_, err := os.Stat(log + ".1")
		return err == nil
	})
	for _, name := range []string{log, log + ".1"} {
		s, err := os.Stat(name)
		must(t, err)
		if s.Size() > 64<<10 || s.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, %v", name, s.Size(), s.Mode())
		}
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	cmd := h.self(nil, h.config().Daemon[1:]...)
	cmd.Stderr = nil
	out, err := cmd.StderrPipe()
	must(t, err)
	must(t, h.ns.Do(cmd.Start))
	text, err := io.ReadAll(out)
	must(t, err)
	if err := cmd.Wait(); err == nil || !strings.Contains(string(text), "another process carries wgt0 already") {
		t.Errorf("got %v, %s", err, text)
	}
	must(t, h.dev.Configure(t.Context(), wgdev.Config{PrivateKey: h.key, ListenPort: port}))
}

// What Start inherits must not stay open in a process that outlives it.
func TestDaemonHoldsNoDescriptorOfItsStarter(t *testing.T) {
	h := newHosts(t, 1)[0]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f, err := l.(*net.TCPListener).File()
	must(t, err)
	must(t, l.Close())
	defer f.Close()
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_SETFD, 0) // as one that was inherited
	if errno != 0 {
		t.Fatal(errno)
	}
	want, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	must(t, err)
	h.start()
	dir := fmt.Sprintf("/proc/%d/fd", h.pid())
	fds, err := os.ReadDir(dir)
	must(t, err)
	for _, fd := range fds {
		if got, _ := os.Readlink(filepath.Join(dir, fd.Name())); got == want {
			t.Errorf("descriptor %s is %s", fd.Name(), got)
		}
	}
}

func BenchmarkUpsert(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("peers=%d", n), func(b *testing.B) {
			h := newHosts(b, 1)[0]
			must(b, h.reopen())
			make := func(i int) wgdev.Peer {
				key, err := wgdev.GeneratePrivateKey()
				must(b, err)
				return wgdev.Peer{PublicKey: key.Public(), AllowedIPs: []netip.Prefix{
					netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32),
					netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}), 128),
				}}
			}
			var there []wgdev.Peer
			for i := range n {
				there = append(there, make(i))
			}
			must(b, h.dev.Upsert(b.Context(), there...))
			one := make(n)
			for b.Loop() {
				must(b, h.dev.Upsert(b.Context(), one))
				b.StopTimer()
				must(b, h.dev.Remove(b.Context(), one.PublicKey))
				b.StartTimer()
			}
		})
	}
}

// Without IFF_VNET_HDR everything works, five times slower.
func TestInterfaceIsMadeForBatches(t *testing.T) {
	h := newHosts(t, 1)[0]
	h.start()
	pidfd, err := unix.PidfdOpen(h.pid(), 0)
	must(t, err)
	defer unix.Close(pidfd)
	dir := fmt.Sprintf("/proc/%d/fd", h.pid())
	fds, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range fds {
		if got, _ := os.Readlink(filepath.Join(dir, e.Name())); got != "/dev/net/tun" {
			continue
		}
		n, err := strconv.Atoi(e.Name())
		must(t, err)
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		must(t, err)
		defer unix.Close(fd)
		req, err := unix.NewIfreq(iface)
		must(t, err, unix.IoctlIfreq(fd, unix.TUNGETIFF, req))
		const want = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_PERSIST
		if got := req.Uint16(); got&want != want {
			t.Errorf("flags %#x, want %#x among them", got, want)
		}
		return
	}
	t.Error("the daemon has no TUN")
}
