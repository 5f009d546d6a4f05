//go:build linux

package supervise

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilityNames are those of capabilities(7), in the order of their numbers
// in linux/capability.h.
func capabilityNames() []string {
	return []string{
		"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
		"setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
		"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
		"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
		"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
		"checkpoint_restore",
	}
}

// capability gives the number of a capability; "net_admin" and
// "CAP_NET_ADMIN" are the same.
func capability(name string) (uintptr, error) {
	i := slices.Index(capabilityNames(), strings.TrimPrefix(strings.ToLower(name), "cap_"))
	if i < 0 {
		return 0, fmt.Errorf("no capability is called %q", name)
	}
	return uintptr(i), nil
}

// capabilities gives the numbers, sorted, each once.
func capabilities(names []string) ([]uintptr, error) {
	var caps []uintptr
	for _, name := range names {
		c, err := capability(name)
		if err != nil {
			return nil, err
		}
		caps = append(caps, c)
	}
	slices.Sort(caps)
	return slices.Compact(caps), nil
}

// confine reduces what processes started from the calling thread can ever
// have to caps: it sets no_new_privs, empties the inheritable and ambient sets
// and drops every other capability from the bounding set. None of it can be
// undone, so the thread must end with its purpose. The thread itself keeps its
// permitted capabilities; it needs them to change the user of its children.
func confine(caps []uintptr) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient set: %w", err)
	}
	// The kernel may know capabilities that capabilityNames does not: ask it
	// for each number until it says there is none.
	for c := uintptr(0); ; c++ {
		held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			break
		}
		if held == 1 && !slices.Contains(caps, c) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
			}
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	for _, c := range caps {
		if data[c/32].Permitted&(1<<(c%32)) == 0 {
			return fmt.Errorf("the supervisor itself lacks the capability %s", capabilityNames()[c])
		}
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("clear the inheritable set: %w", err)
	}
	return nil
}
