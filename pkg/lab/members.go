//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab/netns"
)

// members lists the processes of a lab: those in a namespace of its machines,
// where nobody else has a reason to be. So it needs no record of who was
// started, which a killed process could not have written, and it finds the
// children of children too.
func members(id string) ([]Process, error) {
	machines, err := namespaceFiles(id)
	if err != nil || len(machines) == 0 {
		return nil, err
	}
	proc, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, e := range proc {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		machine, ok := machineOf(pid, machines)
		if !ok {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		out = append(out, Process{PID: pid, Machine: machine, Args: args})
	}
	return out, nil
}

// namespaceFiles maps the namespaces of a lab, as links in /proc/PID/ns name
// them, to its machines.
func namespaceFiles(id string) (map[string]string, error) {
	out := map[string]string{}
	add := func(kind, path, machine string) {
		var fs unix.Statfs_t
		var st unix.Stat_t
		// What is not mounted yet is an ordinary file and nobody's namespace.
		if unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC && unix.Stat(path, &st) == nil {
			out[fmt.Sprintf("%s:[%d]", kind, st.Ino)] = machine
		}
	}
	pins, err := filepath.Glob(pinPath(id, "*"))
	if err != nil {
		return nil, err
	}
	for _, pin := range pins {
		add("mnt", pin, filepath.Base(filepath.Dir(pin)))
	}
	names, err := namespacesOf(id)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		add("net", filepath.Join(netns.Dir, name), strings.TrimPrefix(name, namespaceName(id, "")))
	}
	return out, nil
}

// machineOf tells in which machine a process is; one that has ended is in none.
func machineOf(pid int, machines map[string]string) (string, bool) {
	for _, kind := range []string{"mnt", "net"} {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return "", false
		}
		if m, ok := machines[ns]; ok {
			return m, true
		}
	}
	return "", false
}

// killMembers switches the machines off: whatever runs in them gets SIGKILL,
// again and again until nothing is left that could start something.
func killMembers(ctx context.Context, id string) error {
	machines, err := namespaceFiles(id)
	if err != nil {
		return err
	}
	for {
		procs, err := members(id)
		if err != nil || len(procs) == 0 {
			return err
		}
		var fds []int
		for _, p := range procs {
			fd, err := kill(p.PID, machines)
			if err != nil {
				return fmt.Errorf("kill process %d (%s): %w", p.PID, strings.Join(p.Args, " "), err)
			}
			if fd >= 0 {
				fds = append(fds, fd)
			}
		}
		if err := waitEnded(ctx, fds); err != nil {
			return err
		}
	}
}

// kill sends SIGKILL to a process of the lab and returns a descriptor to wait
// on, -1 when there is nobody to wait for. The descriptor is opened before the
// look at where the process is: so a later process that got the same number is
// never the one that is hit.
func kill(pid int, machines map[string]string) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if _, ok := machineOf(pid, machines); !ok {
		return -1, unix.Close(fd)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// waitEnded waits until the processes of all descriptors have ended, and closes them.
func waitEnded(ctx context.Context, fds []int) error {
	var failed error
	for _, fd := range fds {
		for failed == nil {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((20 * time.Millisecond).Milliseconds()))
			if n > 0 {
				break
			}
			if err != nil && err != unix.EINTR {
				failed = fmt.Errorf("wait for a killed process: %w", err)
			} else if err := ctx.Err(); err != nil {
				failed = fmt.Errorf("wait for a killed process: %w", err)
			}
		}
		_ = unix.Close(fd)
	}
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}
