package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/control"
	"vpnd/pkg/build"
	"vpnd/pkg/view"
)

type versionOptions struct{ client bool }

// versions are both ends of the socket.
type versions struct {
	Client build.Info       `json:"client"`
	Server *control.Version `json:"server"`
}

func newVersion(f *factory) *cobra.Command {
	o := &versionOptions{}
	cmd := &cobra.Command{
		Use: "version", Short: "Show the versions of vpnctl and vpnd", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runVersion(cmd.Context(), f, o) },
	}
	cmd.Flags().BoolVar(&o.client, "client", false, "do not ask vpnd")
	return cmd
}

func runVersion(ctx context.Context, f *factory, o *versionOptions) error {
	v := versions{Client: build.Get()}
	var err error
	if !o.client {
		v.Server, err = call(ctx, f, control.GetVersion, nil)
	}
	if perr := printOne(f, versionTable(), v); perr != nil {
		return perr
	}
	return err
}

func versionTable() view.Table[versions] {
	return view.Table[versions]{
		Noun: "version", Name: func(v versions) string { return v.Client.Version },
		Columns: []view.Column[versions]{
			{Title: "VPNCTL", Cell: func(v versions, _ time.Time) view.Cell { return view.Text(describeBuild(&v.Client)) }},
			{Title: "VPND", Cell: func(v versions, _ time.Time) view.Cell { return view.Or(describeBuild(v.Server)) }},
		},
	}
}

func describeBuild(b *build.Info) string {
	if b == nil {
		return ""
	}
	return b.Version + " (" + b.Go + ", " + b.OS + "/" + b.Arch + ")"
}
