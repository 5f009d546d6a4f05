package view

import (
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/users"
)

// Users is how accounts are shown.
func Users() Table[users.User] {
	type u = users.User
	return Table[u]{
		Noun: "user",
		Name: func(v u) string { return v.Username },
		Columns: []Column[u]{
			{Title: "USER", Shrink: true, Cell: func(v u, _ time.Time) Cell { return Cell{Text: v.Username, Tone: Strong} }},
			{Title: "STATUS", Cell: func(v u, _ time.Time) Cell { return UserState(v.Status) }},
			{Title: "SINCE", Detail: Wide, Cell: func(v u, now time.Time) Cell { return Since(v.StatusSince, now) }},
			{Title: "E-MAIL", Shrink: true, Cell: func(v u, _ time.Time) Cell { return Or(v.Email) }},
			{Title: "DEVICES", Detail: Wide, Right: true, Cell: func(v u, _ time.Time) Cell {
				return Cell{Text: "max " + Number(v.DeviceLimit).Text, Raw: Number(v.DeviceLimit).Text}
			}},
			{Title: "LAST SEEN", Cell: func(v u, now time.Time) Cell { return SinceMaybe(v.LastSeenAt, now) }},
			{Title: "LAST LOGIN", Detail: Wide, Cell: func(v u, now time.Time) Cell { return SinceMaybe(v.LastLoginAt, now) }},
			{Title: "SESSIONS", Detail: Wide, Right: true, Cell: func(v u, _ time.Time) Cell { return Number(v.Sessions) }},
			{Title: "RX", Right: true, Cell: func(v u, _ time.Time) Cell { return Size(v.RxBytes) }},
			{Title: "TX", Right: true, Cell: func(v u, _ time.Time) Cell { return Size(v.TxBytes) }},
			{Title: "CREATED", Detail: Page, Cell: func(v u, now time.Time) Cell { return Since(v.CreatedAt, now) }},
			{Title: "UPDATED", Detail: Page, Cell: func(v u, now time.Time) Cell { return Since(v.UpdatedAt, now) }},
			{Title: "ID", Detail: Wide, Cell: func(v u, _ time.Time) Cell { return Dim(string(v.ID)) }},
		},
	}
}

// DeviceName is what a person types to name a device.
func DeviceName(username, device string) string { return username + "/" + device }

// Devices is how devices are shown.
func Devices() Table[auth.Device] {
	type d = auth.Device
	return Table[d]{
		Noun: "device",
		Name: func(v d) string { return DeviceName(v.Username, v.Name) },
		Columns: []Column[d]{
			{Title: "DEVICE", Shrink: true, Cell: func(v d, _ time.Time) Cell {
				return Cell{Text: DeviceName(v.Username, v.Name), Tone: Strong}
			}},
			{Title: "OS", Shrink: true, Cell: func(v d, _ time.Time) Cell { return Or(v.OS) }},
			{Title: "SIGNED IN", Cell: func(v d, _ time.Time) Cell { return YesNo(v.SignedIn) }},
			{Title: "LAST SEEN", Cell: func(v d, now time.Time) Cell { return SinceMaybe(v.LastSeenAt, now) }},
			{Title: "CREATED", Cell: func(v d, now time.Time) Cell { return Since(v.CreatedAt, now) }},
			{Title: "ID", Detail: Wide, Cell: func(v d, _ time.Time) Cell { return Dim(string(v.ID)) }},
			{Title: "USER ID", Detail: Wide, Cell: func(v d, _ time.Time) Cell { return Dim(string(v.User)) }},
		},
	}
}
