package wgdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"vpnd/pkg/fault"
	"vpnd/pkg/link"
)

const tunPath = "/dev/net/tun"

// tunBusy is how long to wait for a dying predecessor to let go of a TUN.
const tunBusy = 2 * time.Second

// openTUN makes the interface, or takes over a persistent one that nobody holds,
// and brings it up. A persistent one keeps its name, addresses and routes when
// the process dies, and swallows packets until the next one takes it.
func openTUN(name string, mtu int, persist bool) (tun.Device, error) {
	fd, err := attachTUN(name)
	if err != nil {
		return nil, err
	}
	if persist {
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("make %s persistent: %w", name, err)
		}
	}
	// Before os.NewFile, which decides by it whether reads can be interrupted.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), tunPath)
	if err := bringUp(name); err != nil {
		_ = file.Close()
		return nil, err
	}
	dev, err := tun.CreateTUNFromFile(file, mtu)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return dev, nil
}

// attachTUN gives a descriptor bound to the interface. IFF_VNET_HDR is what makes
// reads carry whole batches; without it the tunnel is five times slower, and a
// persistent TUN must be attached with the flags that it was made with.
func attachTUN(name string) (int, error) {
	deadline := time.Now().Add(tunBusy)
	for {
		fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, cannotOpen(err)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err == nil {
			return fd, nil
		}
		_ = unix.Close(fd)
		switch {
		case errors.Is(err, unix.EBUSY) && time.Now().Before(deadline):
			time.Sleep(10 * time.Millisecond) // nothing tells when a TUN is let go
		case errors.Is(err, unix.EBUSY):
			return -1, fault.Wrap(err, fault.Conflict, "interface %s is held by another process", name)
		case errors.Is(err, unix.EINVAL):
			return -1, fault.Wrap(err, fault.Conflict, "interface %s exists and is not a TUN of ours", name).
				WithHint("choose another interface name, or remove it with `ip link del %s`", name)
		case errors.Is(err, unix.EPERM):
			return -1, fault.Wrap(err, fault.Denied, "making interface %s needs CAP_NET_ADMIN", name)
		default:
			return -1, fmt.Errorf("make interface %s: %w", name, err)
		}
	}
}

func cannotOpen(err error) error {
	hint := "load the tun module (modprobe tun), or give the container the device"
	if errors.Is(err, unix.EACCES) {
		hint = "run `chmod 0666 " + tunPath + "`; making interfaces needs CAP_NET_ADMIN all the same"
	}
	return fault.Wrap(err, fault.Unavailable, "cannot open %s", tunPath).WithHint("%s", hint)
}

// EnsureTUN makes /dev/net/tun usable for processes that have CAP_NET_ADMIN and are
// not root, and makes the node where a container lacks it. The mode is the one that
// the kernel's documentation gives and that udev sets: opening the node allows
// nothing by itself. It needs root and tells whether anything had to be changed.
func EnsureTUN() (changed bool, err error) {
	const mode, device = 0o666, 10<<8 | 200
	var st unix.Stat_t
	err = unix.Stat(tunPath, &st)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(filepath.Dir(tunPath), 0o755); err != nil {
			return false, err
		}
		if err := unix.Mknod(tunPath, unix.S_IFCHR|mode, device); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, fault.Wrap(err, fault.Unavailable, "cannot make %s", tunPath).
				WithHint("give the container the device")
		}
		st = unix.Stat_t{}
	} else if err != nil {
		return false, fmt.Errorf("look at %s: %w", tunPath, err)
	}
	if st.Mode&mode == mode {
		return false, nil
	}
	if err := os.Chmod(tunPath, mode); err != nil { // the umask does not count here
		return false, fmt.Errorf("open %s to all: %w", tunPath, err)
	}
	return true, nil
}

// bringUp is done before the device starts, which would otherwise take the link
// for one that was switched off.
func bringUp(name string) error {
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	if err := links.NoLinkLocal(name); err != nil {
		return err
	}
	return links.SetUp(name)
}
