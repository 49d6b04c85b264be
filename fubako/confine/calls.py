"""Numbers of system calls by architecture (the kernel's `unistd` tables): name, x86_64, aarch64; `-` where there is none."""

_TABLE = """
setitimer 38 103 ; getitimer 36 102
read 0 63 ; write 1 64 ; readv 19 65 ; writev 20 66 ; pread64 17 67 ; pwrite64 18 68 ; preadv 295 69 ; pwritev 296 70
preadv2 327 286 ; pwritev2 328 287 ; recvmsg 47 212 ; recvfrom 45 207 ; recvmmsg 299 243 ; sendmsg 46 211
sendto 44 206 ; sendmmsg 307 269 ; shutdown 48 210 ; poll 7 - ; ppoll 271 73 ; select 23 - ; pselect6 270 72
epoll_create 213 - ; epoll_create1 291 20 ; epoll_ctl 233 21 ; epoll_wait 232 - ; epoll_pwait 281 22
epoll_pwait2 441 441 ; eventfd 284 - ; eventfd2 290 19 ; pipe 22 - ; pipe2 293 59 ; futex 202 98 ; futex_waitv 449 449
set_robust_list 273 99 ; get_robust_list 274 100 ; rseq 334 293 ; membarrier 324 283 ; mmap 9 222 ; mprotect 10 226
pkey_mprotect 329 288 ; munmap 11 215 ; mremap 25 216 ; brk 12 214 ; madvise 28 233 ; close 3 57 ; close_range 436 436
lseek 8 62 ; fstat 5 80 ; newfstatat 262 79 ; fcntl 72 25 ; dup 32 23 ; dup2 33 - ; dup3 292 24 ; fsync 74 82
fdatasync 75 83 ; rt_sigaction 13 134 ; rt_sigprocmask 14 135 ; rt_sigreturn 15 139 ; rt_sigpending 127 136
rt_sigtimedwait 128 137 ; sigaltstack 131 132 ; restart_syscall 219 128 ; exit 60 93 ; exit_group 231 94
getpid 39 172 ; gettid 186 178 ; getppid 110 173 ; getuid 102 174 ; geteuid 107 175 ; getgid 104 176 ; getegid 108 177
getpgid 121 155 ; getsid 124 156 ; getrusage 98 165 ; times 100 153 ; sysinfo 99 179 ; uname 63 160 ; getcpu 309 168
clock_gettime 228 113 ; clock_getres 229 114 ; clock_nanosleep 230 115 ; gettimeofday 96 169 ; time 201 -
nanosleep 35 101 ; getrandom 318 278 ; sched_yield 24 124 ; sched_getaffinity 204 123 ; getrlimit 97 163
prlimit64 302 261 ; getsockopt 55 209 ; setsockopt 54 208 ; getsockname 51 204 ; getpeername 52 205 ; ptrace 101 117
process_vm_readv 310 270 ; process_vm_writev 311 271 ; process_madvise 440 440 ; process_mrelease 448 448
pidfd_getfd 438 438 ; pidfd_open 434 434 ; pidfd_send_signal 424 424 ; kcmp 312 272 ; mount 165 40 ; umount2 166 39
pivot_root 155 41 ; chroot 161 51 ; move_mount 429 429 ; open_tree 428 428 ; fsopen 430 430 ; fsconfig 431 431
fsmount 432 432 ; fspick 433 433 ; mount_setattr 442 442 ; setns 308 268 ; unshare 272 97 ; bpf 321 280
perf_event_open 298 241 ; userfaultfd 323 282 ; io_uring_setup 425 425 ; io_uring_enter 426 426
io_uring_register 427 427 ; io_setup 206 0 ; io_submit 209 2 ; init_module 175 105 ; finit_module 313 273
delete_module 176 106 ; kexec_load 246 104 ; kexec_file_load 320 294 ; reboot 169 142 ; swapon 167 224
swapoff 168 225 ; open_by_handle_at 304 265 ; name_to_handle_at 303 264 ; quotactl 179 60 ; quotactl_fd 443 443
acct 163 89 ; settimeofday 164 170 ; clock_settime 227 112 ; clock_adjtime 305 266 ; adjtimex 159 171 ; iopl 172 -
ioperm 173 - ; modify_ldt 154 - ; add_key 248 217 ; request_key 249 218 ; keyctl 250 219 ; personality 135 92
uselib 134 - ; lookup_dcookie 212 18 ; syslog 103 116 ; vhangup 153 58 ; fanotify_init 300 262 ; fanotify_mark 301 263
inotify_init 253 - ; inotify_init1 294 26 ; memfd_create 319 279 ; memfd_secret 447 447 ; sethostname 170 161
setdomainname 171 162 ; nfsservctl 180 42 ; _sysctl 156 - ; ustat 136 - ; sysfs 139 - ; execve 59 221
execveat 322 281 ; fork 57 - ; vfork 58 - ; clone 56 220 ; clone3 435 435 ; kill 62 129 ; tkill 200 130
tgkill 234 131 ; rt_sigqueueinfo 129 138 ; rt_tgsigqueueinfo 297 240 ; socket 41 198 ; socketpair 53 199
connect 42 203 ; bind 49 200 ; listen 50 201 ; accept 43 202 ; accept4 288 242 ; open 2 - ; openat 257 56
openat2 437 437 ; creat 85 - ; truncate 76 45 ; mknod 133 - ; mknodat 259 33 ; mkdir 83 - ; mkdirat 258 34
rmdir 84 - ; unlink 87 - ; unlinkat 263 35 ; link 86 - ; linkat 265 37 ; symlink 88 - ; symlinkat 266 36 ; rename 82 -
renameat 264 38 ; renameat2 316 276 ; stat 4 - ; lstat 6 - ; statx 332 291 ; access 21 - ; faccessat 269 48
faccessat2 439 439 ; readlink 89 - ; readlinkat 267 78 ; getdents 78 - ; getdents64 217 61 ; statfs 137 43
chdir 80 49 ; fchdir 81 50 ; chmod 90 - ; fchmod 91 52 ; fchmodat 268 53 ; fchmodat2 452 452 ; chown 92 -
lchown 94 - ; fchown 93 55 ; fchownat 260 54 ; setxattr 188 5 ; lsetxattr 189 6 ; fsetxattr 190 7 ; removexattr 197 14
lremovexattr 198 15 ; fremovexattr 199 16 ; utime 132 - ; utimes 235 - ; utimensat 280 88 ; futimesat 261 -
ioctl 16 29 ; prctl 157 167 ; arch_prctl 158 - ; seccomp 317 277 ; setrlimit 160 164 ; setpriority 141 140
sched_setscheduler 144 119 ; sched_setparam 142 118 ; sched_setattr 314 274 ; sched_setaffinity 203 122
ioprio_set 251 30 ; setuid 105 146 ; setgid 106 144 ; setreuid 113 145 ; setregid 114 143 ; setresuid 117 147
setresgid 119 149 ; setgroups 116 159 ; setfsuid 122 151 ; setfsgid 123 152 ; capset 126 91 ; mlock 149 228
mlock2 325 284 ; mlockall 151 230 ; shmget 29 194 ; shmat 30 196 ; shmctl 31 195 ; msgget 68 186 ; msgsnd 69 189
msgrcv 70 188 ; msgctl 71 187 ; semget 64 190 ; semop 65 193 ; semctl 66 191 ; mq_open 240 180 ; mq_unlink 241 181
mbind 237 235 ; migrate_pages 256 238 ; move_pages 279 239 ; set_mempolicy 238 237
"""

X86_64: dict[str, int] = {}
AARCH64: dict[str, int] = {}
for _entry in _TABLE.replace("\n", " ; ").strip(" ;").split(" ; "):
    _name, _first, _second = _entry.split()
    if _first != "-":
        X86_64[_name] = int(_first)
    if _second != "-":
        AARCH64[_name] = int(_second)
