//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab/netns"
)

// ownTrees are the directories of which every machine has its own version: the
// host's, plus the machine's changes, which the host and other machines never
// see. Being directories and not single mounted files, they take an atomic
// rename over /etc/resolv.conf.
var ownTrees = []string{"/etc", "/var/lib", "/var/log"}

// hiddenTrees are what a vpnd of the host itself would have there.
var hiddenTrees = []string{"/etc/vpnd", "/var/lib/vpnd", "/var/log/vpnd"}

// homeDir is the home directory of what runs in a machine, inside its own /run.
const homeDir = "/run/home"

// pin is the file on which a machine's mount namespace is mounted; it keeps the
// namespace alive and is the way into it.
func pinPath(id, machine string) string { return filepath.Join(Root, id, machine, "mnt") }

// buildMounts makes the machine's mount namespace and pins it.
func (m *Machine) buildMounts() error {
	pin := pinPath(m.lab.state.ID, m.plan.name)
	if err := os.MkdirAll(filepath.Dir(pin), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(pin, nil, 0o444); err != nil {
		return err
	}
	if err := m.writeFiles(); err != nil {
		return err
	}
	var ns *os.File
	err := netns.OnThread(func() error {
		if err := m.enterNetwork(); err != nil {
			return err // /sys shows the network of whoever mounts it
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make mount namespace: %w", err)
		}
		if err := m.mountAll(); err != nil {
			return err
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid()))
		ns = f
		return err
	})
	if err != nil {
		return fmt.Errorf("mounts of %s: %w", m.plan.name, err)
	}
	defer ns.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), pin, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin the mount namespace of %s: %w", m.plan.name, err)
	}
	return nil
}

// tree is the directory that holds the machine's version of a host directory:
// "upper" and "work" for an overlay, all of it for /run.
func (m *Machine) tree(host string) string {
	return filepath.Join(m.lab.state.files(), m.plan.name, strings.ReplaceAll(strings.TrimPrefix(host, "/"), "/", "-"))
}

// writeFiles makes the machine's own directories and the files that differ from
// the host's from the start.
func (m *Machine) writeFiles() error {
	for _, host := range ownTrees {
		for _, sub := range []string{"upper", "work"} {
			if err := os.MkdirAll(filepath.Join(m.tree(host), sub), 0o755); err != nil {
				return err
			}
		}
	}
	run := m.tree("/run")
	for dir, mode := range map[string]os.FileMode{
		run:                        0o755,
		filepath.Join(run, "lock"): 0o777 | os.ModeSticky,
		filepath.Join(run, filepath.Base(homeDir)): 0o700,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	etc := filepath.Join(m.tree("/etc"), "upper")
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), fmt.Appendf(nil, "nameserver %s\n", ResolverV4), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(etc, "hosts"), hosts(m.lab.state.Clients), 0o644)
}

// hosts is an /etc/hosts with every machine's name.
func hosts(clients int) []byte {
	b := []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, p := range plan(clients)[1:] {
		b = fmt.Appendf(b, "%s %s\n%s %s\n", p.v4.Addr(), p.name, p.v6.Addr(), p.name)
	}
	return b
}

// mountAll runs on a thread that is alone in a new mount namespace.
func (m *Machine) mountAll() error {
	// First of all, so that nothing that follows reaches the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, host := range ownTrees {
		dir := m.tree(host)
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", host, dir, dir)
		if err := unix.Mount("vpnd-lab", host, "overlay", 0, opts); err != nil {
			return fmt.Errorf("overlay %s: %w", host, err)
		}
	}
	for _, host := range hiddenTrees {
		if err := os.RemoveAll(host); err != nil {
			return fmt.Errorf("hide %s: %w", host, err)
		}
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := mountTUN(); err != nil {
		return err
	}
	// Last, because it hides the lab's own directory. The sockets of the host's
	// daemons, a resolver's or D-Bus's, are out of reach from here on.
	if err := unix.Mount(m.tree("/run"), "/run", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

// mountTUN gives the machine a /dev/net/tun of its own with the usual mode,
// which programs that set it then need not change on the host.
func mountTUN() error {
	const dir, device = "/dev/net", 10<<8 | 200
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil // no mount point, and making one would change the host
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755,size=4k"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if err := unix.Mknod(dir+"/tun", unix.S_IFCHR|0o666, device); err != nil {
		return fmt.Errorf("make %s/tun: %w", dir, err)
	}
	return os.Chmod(dir+"/tun", 0o666) // the umask does not count here
}

// enterNetwork moves the calling thread into the machine's network namespace.
func (m *Machine) enterNetwork() error {
	return setns(filepath.Join(netns.Dir, m.Namespace()), unix.CLONE_NEWNET)
}

// enter moves the calling thread, which must end soon, into the machine.
func (m *Machine) enter() error {
	if err := m.enterNetwork(); err != nil {
		return err
	}
	// Threads share their root and working directory until told otherwise.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return setns(pinPath(m.lab.state.ID, m.plan.name), unix.CLONE_NEWNS)
}

func setns(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Setns(int(f.Fd()), kind), f.Close())
}
