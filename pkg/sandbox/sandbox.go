// Package sandbox takes away from a process what it never needs, for good: a
// seccomp filter on all its threads and on everything it starts.
//
// It owns the list of what is taken away. It comes on top of an account of its
// own and no capabilities, which the supervisor sees to; it needs
// no_new_privs, which the supervisor has set too. Call Apply once, early.
package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Policy says what a process may keep.
type Policy struct {
	Netlink bool `json:"netlink"` // open netlink sockets
	Exec    bool `json:"exec"`    // start programs
}

// denied lists the system calls that no service needs. What they would do
// needs privileges too, mostly; the filter keeps the kernel code behind them
// out of reach of somebody who has taken over the process.
func denied() []uint32 {
	return []uint32{
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN,
		unix.SYS_OPEN_TREE, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
		unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG,
		unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX,
		unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_LOOKUP_DCOOKIE,
		unix.SYS_PERSONALITY,
	}
}

// Offsets in struct seccomp_data (seccomp(2)).
const (
	offNr   = 0
	offArch = 4
	offArg0 = 16 // low half, little endian
)

// x32 marks the second system call table of amd64, which would be a way past
// the numbers of the first.
const x32 = 0x40000000

const refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)

// Apply installs the filter on every thread. It cannot be undone.
func Apply(p Policy) error {
	arch, ok := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if !ok {
		return errors.New("sandbox: no filter for " + runtime.GOARCH)
	}
	prog := program(p, arch)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	switch nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); {
	case err != nil:
		return fmt.Errorf("sandbox: ask for no_new_privs: %w", err)
	case nnp != 1:
		return errors.New("sandbox: no_new_privs is not set")
	}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("sandbox: install filter: %w", errno)
	}
	if tid != 0 {
		return fmt.Errorf("sandbox: thread %d could not be confined", tid)
	}
	return nil
}

// program is the filter in classic BPF.
func program(p Policy, arch uint32) []unix.SockFilter {
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	// unlessEqual skips the next n instructions when the loaded value differs.
	unlessEqual := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n}
	}
	prog := []unix.SockFilter{
		load(offArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arch, Jt: 1},
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(offNr),
	}
	if arch == unix.AUDIT_ARCH_X86_64 {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: x32, Jf: 1},
			ret(refuse))
	}
	list := denied()
	if !p.Exec {
		list = append(list, unix.SYS_EXECVE, unix.SYS_EXECVEAT)
	}
	for _, nr := range list {
		prog = append(prog, unlessEqual(nr, 1), ret(refuse))
	}
	families := []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6}
	if p.Netlink {
		families = append(families, unix.AF_NETLINK)
	}
	allow := ret(unix.SECCOMP_RET_ALLOW)
	prog = append(prog, unlessEqual(unix.SYS_SOCKET, uint8(2+2*len(families))), load(offArg0))
	for _, f := range families {
		prog = append(prog, unlessEqual(f, 1), allow)
	}
	return append(prog, ret(refuse), allow)
}
