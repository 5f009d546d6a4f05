package service

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"vpnd/pkg/config"
	"vpnd/pkg/sandbox"
)

// AssignmentEnv names the descriptor that the assignment is read from.
const AssignmentEnv = "VPND_ASSIGNMENT_FD"

// Sibling is another service that this one may call.
type Sibling struct {
	Socket string `json:"socket"`
}

// Assignment is what the supervisor tells a child: facts, no secrets.
type Assignment struct {
	Service   string             `json:"service"`
	StateDir  string             `json:"state_dir"` // this service's own, 0700
	LogDir    string             `json:"log_dir"`   // this service's own; the log service may read it
	RunDir    string             `json:"run_dir"`   // this service's own, for sockets it makes itself
	Siblings  map[string]Sibling `json:"siblings"`  // whom this service may call
	Callers   map[string]uint32  `json:"callers"`   // who may call this service, with their uids
	Listeners int                `json:"listeners"` // inherited sockets, from descriptor 3; the first is the Unix socket
	Sandbox   sandbox.Policy     `json:"sandbox"`   // what the process keeps
	Config    config.Config      `json:"config"`
}

func readAssignment() (Assignment, error) {
	var a Assignment
	fd, err := strconv.Atoi(os.Getenv(AssignmentEnv))
	if err != nil || fd < 3 {
		return a, fmt.Errorf("%s is not set: services are started by 'vpnd run'", AssignmentEnv)
	}
	f := os.NewFile(uintptr(fd), "assignment")
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return a, fmt.Errorf("read assignment: %w", err)
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("read assignment: %w", err)
	}
	return a, nil
}
