//go:build linux

package control

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// origin says where a process came from, as far as /proc lets this account
// see: "vpnctl on pts/3, signed in as alice, ssh from 192.0.2.7". The process
// chooses its own name and environment: this is a help for people, no proof.
func origin(pid int32, uid uint32) string {
	if pid <= 0 {
		return ""
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	out := "?"
	if comm, err := os.ReadFile(dir + "comm"); err == nil {
		out = plain(strings.TrimSuffix(string(comm), "\n"), 32)
	}
	if stat, err := os.ReadFile(dir + "stat"); err == nil {
		if tty := terminal(stat); tty != "" {
			out += " on " + tty
		}
	}
	if login, err := os.ReadFile(dir + "loginuid"); err == nil {
		if who := signedInAs(strings.TrimSpace(string(login)), uid); who != "" {
			out += ", signed in as " + who
		}
	}
	if env, err := os.ReadFile(dir + "environ"); err == nil {
		if peer := sshPeer(env); peer != "" {
			out += ", ssh from " + peer
		}
	}
	return plain(out, maxTarget)
}

// terminal reads the controlling terminal out of /proc/PID/stat (proc(5)):
// the fifth field after the command, which is in parentheses and may hold
// anything.
func terminal(stat []byte) string {
	_, rest, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	if !ok {
		return ""
	}
	fields := bytes.Fields(rest)
	if len(fields) < 5 {
		return ""
	}
	dev, err := strconv.ParseInt(string(fields[4]), 10, 64)
	if err != nil || dev <= 0 {
		return ""
	}
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case major >= 136 && major <= 143: // Unix 98 terminals
		return fmt.Sprintf("pts/%d", (major-136)<<20+minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return fmt.Sprintf("terminal %d:%d", major, minor)
}

// signedInAs names the account that signed in where it is not the one that
// calls: who is behind sudo.
func signedInAs(loginuid string, uid uint32) string {
	n, err := strconv.ParseUint(loginuid, 10, 32)
	if err != nil || uint32(n) == uid || uint32(n) == ^uint32(0) { // never set
		return ""
	}
	if u, err := user.LookupId(loginuid); err == nil {
		return u.Username
	}
	return "uid " + loginuid
}

// sshPeer reads the client's address out of SSH_CONNECTION.
func sshPeer(environ []byte) string {
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if c, ok := bytes.CutPrefix(v, []byte("SSH_CONNECTION=")); ok {
			if f := strings.Fields(string(c)); len(f) > 0 {
				return plain(f[0], 64)
			}
		}
	}
	return ""
}
