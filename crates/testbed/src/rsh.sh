#!/bin/sh
# Takes the place of ssh between the hosts of one testbed: rsh [OPTION].. [USER@]HOST COMMAND..
# As there, the words of the command are joined for a shell, which starts in the home folder with a fresh environment.
while :; do
    case $1 in
    -[BbcDEeFIiJLlmOoPpQRSWw]) shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
host=${1#*@}
[ $# -gt 0 ] && shift
case $host in
@HOSTS@
*)
    echo "rsh: no host is called '$host'" >&2
    exit 255
    ;;
esac
cd "${HOME:-/}" || exit 255
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$PWD" USER=root LOGNAME=root SHELL=/bin/sh \
    nsenter $where --wdns="$PWD" sh -c "$*"
