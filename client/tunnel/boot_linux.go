package tunnel

import (
	"os"
	"strings"
)

// bootID changes with every start of the kernel; empty where it cannot be read,
// and then an old journal counts as this boot's, which is the safe side.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
