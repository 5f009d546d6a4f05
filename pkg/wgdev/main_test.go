//go:build linux

package wgdev_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// The test binary plays the other processes too.
const (
	playDaemon    = "play-daemon"     // INTERFACE MTU RUNDIR
	playOpener    = "play-opener"     // INTERFACE MTU RUNDIR PRIVATEKEY: opens, configures, is gone
	playInProcess = "play-in-process" // INTERFACE ADDRESS PRIVATEKEY SERVERKEY ENDPOINT: until stdin ends
	playUser      = "play-user"       // UID, then as playOpener: becomes that user, with the capability
	playWGCtrl    = "play-wgctrl"     // INTERFACE RUNDIR PRIVATEKEY: the kernel's driver
	playBroken    = "play-broken"     // ends at once
)

func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	var err error
	switch args := os.Args[2:]; os.Args[1] {
	case playDaemon:
		mtu, _ := strconv.Atoi(args[1])
		err = wgdev.RunDaemon(context.Background(), wgdev.DaemonConfig{Interface: args[0], MTU: mtu, RunDir: args[2], LogSize: 64 << 10})
	case playOpener:
		err = opener(args)
	case playUser:
		err = asUser(args)
	case playWGCtrl:
		err = byWGCtrl(args)
	case playInProcess:
		err = inProcess(args)
	case playBroken:
		err = fmt.Errorf("no such luck")
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func opener(args []string) error {
	mtu, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	key, err := wgdev.ParsePrivateKey(args[3])
	if err != nil {
		return err
	}
	ctx := context.Background()
	dev, err := wgdev.Open(ctx, openConfig(args[0], mtu, args[2]))
	if err != nil {
		return err
	}
	if err := dev.Configure(ctx, wgdev.Config{PrivateKey: key, ListenPort: 51820, FirewallMark: 7}); err != nil {
		return err
	}
	fmt.Println("ready")
	return nil
}

// asUser runs in a mount namespace of its own, where /dev/net/tun may be opened by
// everybody, as it is on most machines.
func asUser(args []string) error {
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := hide("/mnt"); err != nil {
		return err
	}
	// The real one may be 0600; this one is hidden from the rest of the machine.
	const node = "/mnt/tun"
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, 10<<8|200); err != nil {
		return err
	}
	if err := unix.Mount(node, "/dev/net/tun", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, want := range []bool{true, false} {
		if changed, err := wgdev.EnsureTUN(); err != nil || changed != want {
			return fmt.Errorf("ensure tun: changed %v, %w", changed, err)
		}
	}
	// As a service does, which gains nothing by any exec after that.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", append([]string{playOpener}, args[1:]...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN},
	}
	return cmd.Run()
}

// hide covers a directory with an empty one, in a mount namespace of our own.
func hide(dir string) error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("dev", dir, "tmpfs", 0, "mode=755")
}

// byWGCtrl puts the daemon's socket where wgctrl looks, in a mount namespace of its
// own, and drives the daemon as if it were the kernel.
func byWGCtrl(args []string) error {
	name, runDir := args[0], args[1]
	key, err := wgdev.ParsePrivateKey(args[2])
	if err != nil {
		return err
	}
	if err := hide("/run"); err != nil {
		return err
	}
	socket := "/run/wireguard/" + name + ".sock"
	if err := os.Mkdir("/run/wireguard", 0o755); err != nil {
		return err
	}
	// wgctrl takes the kind of the file from its directory entry.
	if err := unix.Mknod(socket, unix.S_IFSOCK|0o600, 0); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join(runDir, name+".sock"), socket, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	dev, err := wgdev.OpenByWGCtrl(name)
	if err != nil {
		return err
	}
	defer dev.Close()
	return exerciseDevice(context.Background(), dev, key)
}

// exerciseDevice is what every back end must do alike.
func exerciseDevice(ctx context.Context, dev *wgdev.Device, key wgdev.PrivateKey) error {
	for range 2 {
		if err := dev.Configure(ctx, wgdev.Config{PrivateKey: key, ListenPort: port, FirewallMark: 9}); err != nil {
			return err
		}
	}
	psk, err := wgdev.GeneratePresharedKey()
	if err != nil {
		return err
	}
	want := []wgdev.Peer{
		{PublicKey: wgdev.Key{9}, PresharedKey: psk, Keepalive: 25 * time.Second,
			AllowedIPs: prefixes("10.8.0.2/32", "fd08::2/128"), Endpoint: netip.MustParseAddrPort("198.18.7.7:7")},
		{PublicKey: wgdev.Key{9, 1}, AllowedIPs: prefixes("10.8.0.3/32"), Endpoint: netip.MustParseAddrPort("[fd18::7]:8")},
		{PublicKey: wgdev.Key{9, 2}},
	}
	check := func(want ...wgdev.Peer) error {
		got, err := dev.Peers(ctx)
		if err != nil {
			return err
		}
		if len(got) != len(want) {
			return fmt.Errorf("%d peers, want %d", len(got), len(want))
		}
		for _, w := range want {
			i := slices.IndexFunc(got, func(g wgdev.PeerState) bool { return g.PublicKey == w.PublicKey })
			if i < 0 || !got[i].SameConfig(w) || got[i].Endpoint != w.Endpoint || !got[i].LastHandshake.IsZero() {
				return fmt.Errorf("got %+v, want %+v", got, w)
			}
		}
		return nil
	}
	if err := errors.Join(dev.Upsert(ctx, want...), dev.Upsert(ctx, want...), check(want...)); err != nil {
		return err
	}
	want[0].PresharedKey, want[0].Keepalive, want[0].AllowedIPs = wgdev.PresharedKey{}, 0, prefixes("10.8.0.4/32")
	unchanged := want[0]
	unchanged.Endpoint = netip.AddrPort{} // leaves it alone
	if err := errors.Join(dev.Upsert(ctx, unchanged), check(want...)); err != nil {
		return err
	}
	if err := errors.Join(dev.Remove(ctx, want[1].PublicKey, want[2].PublicKey, wgdev.Key{9, 3}), check(want[0])); err != nil {
		return err
	}
	info, err := dev.Info(ctx)
	if err != nil {
		return err
	}
	if info.PublicKey != key.Public() || info.ListenPort != port || info.PeerCount != 1 || info.Backend != dev.Backend() {
		return fmt.Errorf("info %+v", info)
	}
	return nil
}

func inProcess(args []string) error {
	key, err := wgdev.ParsePrivateKey(args[2])
	if err != nil {
		return err
	}
	server, err := wgdev.ParsePublicKey(args[3])
	if err != nil {
		return err
	}
	ctx := context.Background()
	dev, err := wgdev.NewInProcess(args[0], 1420)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := dev.Configure(ctx, wgdev.Config{PrivateKey: key}); err != nil {
		return err
	}
	err = dev.Upsert(ctx, wgdev.Peer{PublicKey: server, Endpoint: netip.MustParseAddrPort(args[4]),
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/16")}})
	if err != nil {
		return err
	}
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	address := netip.MustParsePrefix(args[1])
	if err := links.Apply(ctx, link.Interface{Name: args[0], Addresses: []netip.Prefix{address}, Up: true}); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// openConfig starts this test binary as the daemon. /proc/self/exe also works for
// a user who may not enter the directory of the binary.
func openConfig(name string, mtu int, runDir string) wgdev.OpenConfig {
	return wgdev.OpenConfig{
		Interface: name, MTU: mtu, RunDir: runDir, Prefer: wgdev.PreferUserspace,
		Daemon: []string{"/proc/self/exe", playDaemon, name, strconv.Itoa(mtu), runDir},
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// containing compares a text with a part of it.
var containing = cmp.Comparer(func(a, b string) bool { return strings.Contains(a, b) || strings.Contains(b, a) })
