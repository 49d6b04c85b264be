"""System calls in groups of one purpose. `COMPUTING` is all that a process needs which only works on octets; the others are taken
away."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COMPUTING = _names(
    """setitimer getitimer
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 recvmsg recvfrom recvmmsg sendmsg sendto sendmmsg
    shutdown poll ppoll select pselect6 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 futex futex_waitv set_robust_list rseq
    membarrier munmap mremap brk madvise close lseek fstat fcntl rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending
    rt_sigtimedwait sigaltstack restart_syscall exit exit_group getpid gettid getppid getuid geteuid getgid getegid getrusage
    times getcpu clock_gettime clock_getres clock_nanosleep gettimeofday time nanosleep getrandom sched_yield sched_getaffinity
    getsockopt getsockname getpeername"""
)

# Steers the machine, looks into other processes, or is so large and new that it is where kernels are broken into
MACHINE = _names(
    """mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr setns unshare bpf
    perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register init_module finit_module delete_module kexec_load
    kexec_file_load reboot swapon swapoff open_by_handle_at name_to_handle_at quotactl quotactl_fd acct settimeofday clock_settime
    clock_adjtime adjtimex iopl ioperm modify_ldt add_key request_key keyctl personality uselib lookup_dcookie syslog vhangup
    fanotify_init fanotify_mark sethostname setdomainname nfsservctl _sysctl ustat sysfs mbind migrate_pages move_pages
    set_mempolicy shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semctl mq_open mq_unlink memfd_secret"""
)
OTHERS = _names("""ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp""")
RIGHTS = _names("setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset")
SIGNALS = _names("tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal")
RUN = _names("execve execveat")
SPAWN = _names("fork vfork")
MODES = _names(
    """chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat setxattr lsetxattr fsetxattr removexattr lremovexattr
    fremovexattr utime utimes utimensat futimesat"""
)
# What changes a folder or a file by its path, whatever Landlock knows of it
CHANGES = _names(
    """creat truncate mknod mknodat mkdir mkdirat rmdir unlink unlinkat link linkat symlink symlinkat rename renameat
    renameat2"""
)
PATHS = _names("open openat openat2 stat lstat access readlink readlinkat getdents getdents64 statfs chdir fchdir")
